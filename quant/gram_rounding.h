// Rounding of all weights that read one input, with its Gram matrix: the factorisation that they share, and how far its
// off-diagonal part is trusted.
//
// What columns do for each other is learnt from the calibration rows, and compensation that fits them too closely makes other text
// worse. So the off-diagonal part is multiplied by the factor that leaves the least error on rows that were held back; a factor of
// 0 is rounding to nearest.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/affine.h"
#include "quant/compensated_rounding.h"
#include "quant/input_statistics.h"
#include "quant/rounding.h"

namespace salient::quant {

// A weight as it will be quantized (float32 [out, in], multiplied by the scales), and how.
struct WeightToRound {
  at::Tensor weight;
  AffineOptions options;
  ClipRange clip;  // undefined tensors = full ranges
  // Rounded already by a format's own quantizer, whose scales and zero points are kept; undefined tensors = quantize_affine(weight,
  // options, clip).
  QuantizedWeight start = {};
  // What rounding it to nearest leaves of each output channel, where that is known already (output_error_by_row): float32 [out].
  at::Tensor nearest_error = {};

  const ClipRange* range() const { return clip.low.defined() ? &clip : nullptr; }
};

struct RoundedWeight {
  QuantizedWeight weight;
  double held_back_nearest =
      -1;  // error for each held-back row, summed over the output channels, rounded to nearest; -1 when none were held back
  double held_back_error = -1;  // the same with the factor chosen, from the other rows alone
  at::Tensor error = {};        // of each output channel, as WeightToRound::nearest_error; undefined where nobody had to know
};

struct RoundedWeights {
  std::vector<RoundedWeight> weights;  // in the order given
  double off_diagonal = -1;            // factor that was used; -1 with nearest rounding
  double damping = 0;                  // that the factorisation needed
};

// `statistics`: of the input that the weights see, finished. No output channel of any weight is worse than rounded to nearest, over
// all rows. Memory: besides the statistics two matrices [in, in], and about eight of the largest weight's shape.
RoundedWeights round_weights(const std::vector<WeightToRound>& weights, const InputStatistics& statistics,
                             const RoundingOptions& options);

// The held-back error of each weight, as RoundedWeight has it, of what round_weights would make of it from other rows than those
// that are not held back. fit_gram: of these rows. `statistics`: with held-back rows.
std::vector<double> held_back_errors(const std::vector<WeightToRound>& weights, const at::Tensor& fit_gram,
                                     const InputStatistics& statistics, const RoundingOptions& options);

// The Gram matrix of x / columns. columns: float32 [in_features] on any device, such as AWQ scales; undefined = `gram` itself.
at::Tensor divided_gram(const at::Tensor& gram, const at::Tensor& columns);
// All Gram matrices of x / columns; abs_sum stays that of x. One matrix more than before is in memory at a time where `statistics`
// is moved here and nobody else holds its matrices.
InputStatistics divided(InputStatistics statistics, const at::Tensor& columns);

}  // namespace salient::quant
