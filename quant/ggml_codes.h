// The codes inside of ggml's blocks, with the scales and zero points that they stand for: so that codes can be chosen anew while a
// block's scales are held, by the rounding that uses what is known of the inputs (quant/gram_rounding.h) and not of single weights
// alone. Layouts: quant/ggml_blocks.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"
#include "quant/ggml_types.h"

namespace salient::quant {

// Bits of a code (4, 5, 6 or 8) and elements that share a scale (32, or 16 in Q6_K). 0 for types that have no codes (F32, F16,
// BF16).
struct GgmlCodes {
  int bits = 0;
  int64_t group_size = 0;
};
GgmlCodes ggml_codes(GgmlType type);

// blocks: uint8 [rows, bytes]. Codes count from 0 (those of Q8_0 are stored as signed numbers: 0 is -128 there); zeros are float32,
// w = (code - zero) * scale up to rounding. Where a scale is 0, it is a very small number here, so that every code stands for
// nearly the same. Scales can be negative. Errors: internal for a type without codes.
QuantizedWeight read_ggml_codes(const at::Tensor& blocks, GgmlType type);

// The blocks with these codes, uint8 [rows, columns], in place of their own; everything else is kept.
at::Tensor with_ggml_codes(const at::Tensor& blocks, GgmlType type, const at::Tensor& codes);

}  // namespace salient::quant
