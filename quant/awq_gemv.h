// AutoAWQ's GEMV layout ("version": "gemv"), for generation with small batches. Read by AutoAWQ, GPTQModel and transformers.
//
// For a weight of N output and K input channels in groups of G = 32, 64 or 128, with ZW = padded_zero_words(K, G) (awq_layout.h):
//   qweight int32   [N, K/8]    word (n, c): nibble i (bits 4i .. 4i+3) is the code of input channel 8c+i
//   qzeros  int32   [N, ZW]     word (n, c): nibble i is the zero point of group 8c+i, 0..15 stored as they are
//   scales  float16 [N, 8*ZW]   column g is that of group g
// What qzeros and scales hold beyond the K/G groups is written 0 and not read.
// Example: codes 0,1,...,7 of input channels 0..7 make the word 0x76543210.
//
// What runs it: AutoAWQ's kernels have groups of 64 and 128 only and, for more than 8 rows of activations, N in multiples of 64.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"

namespace salient::quant {

struct PackedGemv {
  at::Tensor qweight;
  at::Tensor qzeros;
  at::Tensor scales;
};

// Errors: invalid argument, saying what fits: N in multiples of 8, groups of 32, 64 or 128 that divide K.
void check_awq_gemv(int64_t out_features, int64_t in_features, int64_t group_size);

// Errors: as check_awq_gemv; invalid argument for codes beyond 4 bits and scales beyond float16.
PackedGemv pack_awq_gemv(const QuantizedWeight& weight);

// The inverse. N and K follow from qweight; padding hides G. Errors: unsupported for group sizes that the layout does not have,
// corruption when the shapes do not fit each other and `group_size`.
QuantizedWeight unpack_awq_gemv(const at::Tensor& qweight, const at::Tensor& qzeros, const at::Tensor& scales, int64_t group_size);

}  // namespace salient::quant
