// The "pack-quantized" layout of compressed-tensors, the one that llm-compressor writes and compressed-tensors, transformers and
// vLLM read.
//
// For a weight of N output and K input channels, b bits (2 to 8), and groups of G input channels:
//   weight_packed      int32 [N, ceil(K*b/32)]     a row is a stream of bits: code k takes bits k*b .. k*b+b-1, word i holds bits 32i .. 32i+31, least
//                                                  significant first, so that a code may lie in two words; unused bits of the last word are 0
//   weight_scale       float [N, K/G]
//   weight_zero_point  int32 [ceil(N*b/32), K/G]   asymmetric only: each column is such a stream of the zero points of channels 0 .. N-1
//   weight_shape       int64 [2]                   N, K
// Codes and zero points are stored as they are here, 0 .. 2^b - 1; symmetric: the zero point is 2^(b-1) and not stored.
// Example: 3 bits, codes k % 8 for k = 0 .. 31 are the words 0x88fac688 0xc688fac6 0xfac688fa.
//
// Before compressed-tensors had this dense order, codes whose width does not divide 32 were never split: floor(32/b) codes to a
// word, the upper bits 0. For 2, 4 and 8 bits both are the same; for the others the width of weight_packed tells which one it is
// (where both have the same width, possible only when K is not a multiple of 32, the dense one is taken).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "quant/affine.h"

namespace salient::quant {

struct PackQuantized {
  at::Tensor packed;      // weight_packed
  at::Tensor scale;       // weight_scale
  at::Tensor zero_point;  // weight_zero_point, or undefined
  at::Tensor shape;       // weight_shape
};

enum class CodeOrder : uint8_t { kDense, kWhole };  // kWhole: no code lies in two words

// Words that a row of `count` codes takes.
int64_t packed_words(int64_t count, int bits, CodeOrder order = CodeOrder::kDense);

// `scale_dtype`: float16, bfloat16 or float32; scales that are not exact in it are rounded. Without `zero_point`, zeros that are
// not 2^(bits-1) are refused. Errors: invalid argument, also for codes or zero points beyond the bits.
PackQuantized pack_quantized(const QuantizedWeight& weight, int bits, bool zero_point, at::ScalarType scale_dtype);

// The inverse; `shape` is not read. zero_point undefined = symmetric. Errors: corruption when the shapes do not fit each other,
// `bits` and `in_features`.
QuantizedWeight unpack_quantized(const PackQuantized& packed, int64_t in_features, int bits);

// The bits, 2 to 8, with which `words` hold a row of `in_features` codes and `zero_words` a column of `out_features` zero points (0
// = symmetric: not stored): those of the dense order first. More than one only for very few input channels, and for 7 bits of the
// older order, which take the room of 8.
std::vector<int> possible_bits(int64_t words, int64_t in_features, int64_t zero_words, int64_t out_features);

// The streams alone. codes: uint8 [rows, count] -> int32 [rows, words], always dense. Inverse: the first `count` codes of each row.
at::Tensor pack_codes_dense(const at::Tensor& codes, int bits);
at::Tensor unpack_codes(const at::Tensor& words, int64_t count, int bits, CodeOrder order = CodeOrder::kDense);

}  // namespace salient::quant
