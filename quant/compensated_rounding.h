// Error-compensated rounding: columns are rounded one after the other, and what the output lost by the columns so far is made up
// for by those that follow. With the factorisation H = U D U^T (U unit upper triangular, columns in the order of rounding) column k
// is rounded at w_k + sum over i < k of (w_i - q_i) U[i, k]: the LDL form (Chee et al., "QuIP", arXiv 2307.13304, theorem 1) of
// GPTQ's update (arXiv 2210.17323), which needs one factorisation and no inverse.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"
#include "quant/rounding.h"

namespace salient::quant {

// What every linear that reads the same input shares: the order of the columns and the factor U.
struct CompensationFactor {
  at::Tensor order;    // int64 [in_features]: order[k] is the column that is rounded as the k-th; undefined = as they lie
  at::Tensor factor;   // float32 [in_features, in_features], U, rows and columns in that order
  double damping = 0;  // that was needed, as a share of the mean diagonal
};

// gram: float32 [in, in], symmetric, of the input that the weight sees. options.damping is added to the diagonal as a share of its
// mean, ten times more as often as the factorisation needs it. Channels that are always zero get the mean as their diagonal, so
// that they are rounded to nearest.
CompensationFactor factorize_gram(const at::Tensor& gram, const RoundingOptions& options);

// weight: float32 [out, in], as it will be quantized. Scales and zero points are those of quantize_affine(weight, options, clip);
// only the codes differ.
QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, const AffineOptions& options,
                                  const ClipRange* clip = nullptr);

// The same with given scales and zero points, those of `start`; its codes are replaced.
QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, const QuantizedWeight& start,
                                  int bits);

}  // namespace salient::quant
