// Weights in ggml's block types, chosen by what is known of the inputs: the Gram matrix G of what the linear reads
// (quant/input_statistics.h).
//
// ggml's own quantizers know one number for each input channel, its importance: the diagonal of G. It weighs the errors inside of a
// block while the block's scales are searched. Codes are then chosen anew with all of G (quant/gram_rounding.h), the scales held.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/affine.h"
#include "quant/ggml_types.h"
#include "quant/gram_rounding.h"
#include "quant/input_statistics.h"
#include "quant/scale_search.h"

namespace salient::quant {

// The affine quantization that is nearest to a type: its bits and groups, and zero points where its groups have minimums of their
// own. bits 0 for types that have no codes.
AffineOptions ggml_stand_in(GgmlType type);

// gram: float32 [in, in]. Returns float32 [in], the diagonal: every value positive, because with weights that are all 0 ggml's
// search of Q4_K and Q5_K gives scales that wrap around. Undefined (no importance) where the diagonal is all zeros.
at::Tensor ggml_importance(const at::Tensor& gram);

// weight: float32 [out, in]; gram: of the inputs that the weight sees, or undefined: the blocks of ggml's reference quantizer
// without importance. With it, of each row the blocks with or without importance, whichever leave less error. uint8 [out, bytes of
// a row]. Errors: those of quantize_ggml.
at::Tensor blocks_by_importance(const at::Tensor& weight, GgmlType type, const at::Tensor& gram);

// For round_weights: codes of these blocks to begin with. weight: float32 [out, in].
WeightToRound weight_of_blocks(const at::Tensor& weight, const at::Tensor& blocks, GgmlType type);

// Which of a few scales leave the least error once the weights that read one input are in blocks: ScaleSearch compares by affine
// groups, which are cheap. Weights may be shown one after the other. Of weights with many rows some are measured, evenly spread.
class GgmlScaleChoice {
 public:
  // candidates: identity first. `statistics` must outlive the choice.
  GgmlScaleChoice(const InputStatistics& statistics, std::vector<ScaleSearchResult> candidates);

  // weight: float32 [out, in], not scaled. `none_worse`: a candidate that leaves this weight more error than identity does cannot
  // win.
  void add_error(const at::Tensor& weight, GgmlType type, bool none_worse = true);
  // rtn_error and best_error are those of the blocks, on the rows that were measured.
  ScaleSearchResult finish() const;

 private:
  struct Measured {
    ScaleSearchResult scales;
    double error = 0;
    bool refused = false;
  };
  const InputStatistics& statistics_;
  std::vector<Measured> candidates_;
};

}  // namespace salient::quant
