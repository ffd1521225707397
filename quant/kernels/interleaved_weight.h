// Codes of a quantized linear in the order in which the integer products read them: one stream, no shuffles, a lane for each output
// channel.
//
// 16 output channels are a tile; the last one is filled with channels of code, zero and scale 0. Each group of input channels is
// filled with code 0 up to a multiple of 8. A line of 64 bytes is 16 words, word c of channel c of the tile:
//   4 bits   a line is 8 input channels; byte i of a word holds channel i in its low and channel 4 + i in its high four bits
//   8 bits   a line is 4 input channels; byte i of a word is channel i
// Order: tile, group, line. Example, 4 bits, codes 1, 2, ..., 8 of one output channel: its word is the bytes 51 62 73 84
// (hexadecimal). At 4 bits in groups of 128 with float16 scales a weight takes 4 + 24 / 128 = 4.1875 bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/awq_gemm.h"

namespace salient::quant {

struct WeightView;  // quant/kernels/tile_kernels.h

// W[n, k] = (code[n, k] - zero[n, k / group_size]) * scale[n, k / group_size].
struct InterleavedWeight {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = 0;  // divides in_features
  int bits = 4;            // of storage: 4 or 8
  at::Tensor codes;        // uint8 [tiles, groups, padded_group * 16 * bits / 8]
  at::Tensor zeros;        // uint8 [tiles, groups, 16]
  at::Tensor scales;       // the same shape; float16 or bfloat16 where every scale is one exactly, else float32
};

// A sum of 65536 products of 255 and -128 still fits into 32 bits.
inline constexpr int64_t kMaxIntegerGroup = 65536;

// codes: uint8 [out, in]; zeros: uint8 [out, in / group_size]; scales: float [out, in / group_size], all on the CPU. In 4 bits
// where codes and zeros are at most 15. Errors: invalid argument for shapes that do not fit, a group size that does not divide or
// is above kMaxIntegerGroup.
InterleavedWeight interleave(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, int64_t group_size);

// The same from AutoAWQ's GEMM layout, on the CPU and contiguous, in one pass. Errors: those of check_packed_gemm.
InterleavedWeight interleave(const PackedGemm& packed);

// What went in: uint8 [out, in]; uint8 and float32 [out, groups].
at::Tensor natural_codes(const InterleavedWeight& weight);
at::Tensor natural_zeros(const InterleavedWeight& weight);
at::Tensor natural_scales(const InterleavedWeight& weight);

int64_t padded_group(int64_t group_size);  // rounded up to a multiple of 8
uint64_t memory_bytes(const InterleavedWeight& weight);
WeightView view_of(const InterleavedWeight& weight);

}  // namespace salient::quant
