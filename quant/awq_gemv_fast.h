// AutoAWQ's GEMV_FAST layout ("version": "gemv_fast"), which is llm-awq's "v2" layout. Read by AutoAWQ and GPTQModel, and, with
// qzeros named scaled_zeros, by llm-awq (float16 or bfloat16).
//
// For a weight of N output and K input channels in groups of G = 32, 64 or 128, with ZW = padded_zero_words(K, G) (awq_layout.h):
//   qweight int16   [N/4, K]    word (R, 64b + 16r + m), r = 0..3, m = 0..15: nibble t (bits 4t .. 4t+3) is the code of output
//   channel 4R+r and input
//                               channel 64b + CHANNEL[4m+t]
//                               CHANNEL[32h + 8i + 4j + l] = 32h + 8l + 2i + j   for h = 0..1, i = 0..3, j = 0..1, l = 0..3
//   scales  float16 [8*ZW, N]   row g is that of group g
//   qzeros  float16 [8*ZW, N]   -(scale * zero point), rounded once; the zero point itself is not stored
// What scales and qzeros hold beyond the K/G groups is written 0 and not read.
// Example: 4 output and 64 input channels with codes (3n + k) % 16 begin with the words 0x8080 0x9191 0xa2a2 0xb3b3.
//
// The zero point comes back exactly: rounding scale * zero moves qzeros / scale by at most 15 * 2^-11 = 0.008 in float16 and 15 *
// 2^-8 = 0.06 in bfloat16 (products of subnormal scales are exact or better). Products with 8, all that symmetric weights have, are
// exact.
//
// What runs it: kernels of AutoAWQ and llm-awq have groups of 128 only and, except for one token at a time, N in multiples of 128.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"

namespace salient::quant {

struct PackedGemvFast {
  at::Tensor qweight;
  at::Tensor scales;
  at::Tensor qzeros;
};

// Errors: invalid argument, saying what fits: N in multiples of 8, K of 64, groups of 32, 64 or 128 that divide K.
void check_awq_gemv_fast(int64_t out_features, int64_t in_features, int64_t group_size);

// `scale_dtype`: float16, or bfloat16 for llm-awq; scales that are not exact in it are rounded.
// Errors: as check_awq_gemv_fast; invalid argument for codes beyond 4 bits and for scales, or products of scale and zero point,
// that are not finite.
PackedGemvFast pack_awq_gemv_fast(const QuantizedWeight& weight, at::ScalarType scale_dtype = at::kHalf);

// The inverse; `scales` and `qzeros` may be of any float type. N and K follow from qweight; padding hides G. In a group whose scale
// is 0 every weight is 0 and the zero point is lost: it is read as 8. Errors: unsupported for group sizes that the layout does not
// have; corruption when the shapes do not fit each other and `group_size`, and for qzeros / scale that is not within 1/8 of an
// integer 0..15, naming the place.
QuantizedWeight unpack_awq_gemv_fast(const at::Tensor& qweight, const at::Tensor& scales, const at::Tensor& qzeros,
                                     int64_t group_size);

}  // namespace salient::quant
