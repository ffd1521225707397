// AutoAWQ's Marlin layout ("version": "marlin", "zero_point": false), that of the first Marlin kernel: symmetric weights only. Read
// by AutoAWQ. (vLLM and others that run Marlin today make its layout themselves, from GEMM files.)
//
// For a weight of N output and K input channels, in groups of any G that divides K, or one group for each output channel:
//   qweight int32   [K/16, 2N]   word (T, 128b + 4i + j), i = 0..31, j = 0..3: nibble x (bits 4x .. 4x+3) is the code of
//                                  output channel 64b + 16j + i/4 + {0,0,8,8,0,0,8,8}[x] and input channel 16T + 2(i%4) +
//                                  {0,8,0,8,1,9,1,9}[x]
//   scales  float16 [K/G, N]     more than one group: column 64b + 8i + j, i, j = 0..7, is that of output channel 64b + i + 8j
//                                one group:           column 32b + 8i + x, i = 0..3, of output channel 32b + 2i +
//                                {0,1,8,9,16,17,24,25}[x]
// Codes are 0..15; the zero point is 8 and not stored.
// Example: codes (n + k) % 16 begin with the word 0x19910880.
//
// What runs it: the kernel has groups of 128 or one group, K in multiples of 128 and N in multiples of 256.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"

namespace salient::quant {

struct PackedMarlin {
  at::Tensor qweight;
  at::Tensor scales;
};

// `group_size`: -1 = one group for each output channel. Errors: invalid argument, saying what fits: N in multiples of 64, K of 16,
// groups that divide K.
void check_awq_marlin(int64_t out_features, int64_t in_features, int64_t group_size);

// Errors: as check_awq_marlin; invalid argument for zero points other than 8, codes beyond 4 bits and scales beyond float16.
PackedMarlin pack_awq_marlin(const QuantizedWeight& weight);

// The inverse; the shapes say N, K and G. Errors: corruption when they do not fit each other.
QuantizedWeight unpack_awq_marlin(const at::Tensor& qweight, const at::Tensor& scales);

}  // namespace salient::quant
