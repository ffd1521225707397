// Weight clipping on the exact group blocks of the Gram matrix: for each group of each row the range that leaves the least output
// error of that group, over all calibration tokens; both ends of the range shrink together first, then each in turn.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"
#include "quant/input_statistics.h"
#include "quant/row_slices.h"

namespace salient::quant {

struct ClipSearchOptions {
  int steps = 10;                                  // candidates for each end: 1, 1 - step, ...
  double max_shrink = 0.5;                         // the last candidate is 1 - max_shrink
  int64_t max_chunk_memory = kDefaultChunkMemory;  // bytes of the temporaries; changes no result beyond the order of sums
};

struct ClipSearchResult {
  ClipRange range;           // for quantize_affine
  at::Tensor error_before;   // d G d^T / rows of each output channel with its full range: float32 [out]
  at::Tensor error_after;    // with `range`; never larger
  double clipped_share = 0;  // share of groups whose range was shrunk
};

// weight: float32 [out, in] as it will be quantized (already multiplied by the AWQ scales); gram: of the input that this weight
// sees (already divided by them), float32 [in, in]; rows: tokens in it.
// The search minimises each group's own error; a row for which that makes the whole row's error (all groups together) larger is
// left unclipped.
ClipSearchResult search_clip(const at::Tensor& weight, const at::Tensor& gram, int64_t rows, const AffineOptions& options,
                             const ClipSearchOptions& search);

}  // namespace salient::quant
