// AutoAWQ's GEMM layout, the one that AutoAWQ, transformers, vLLM, SGLang and TGI read.
//
//   qweight int32   [in, out/8]          word (k, c) holds the codes of output channels 8c .. 8c+7 at input channel k
//   qzeros  int32   [in/group, out/8]    word (g, c) holds the zero points of the same channels, 0..15 stored as they are
//   scales  float16 [in/group, out]
//   nibble i (bits 4i .. 4i+3) of a word belongs to output channel 8c + {0,2,4,6,1,3,5,7}[i]
// Example: codes 0,1,...,7 of channels 0..7 make the word 0x75316420.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"
#include "quant/spec.h"

namespace salient::quant {

struct PackedGemm {
  at::Tensor qweight;
  at::Tensor qzeros;
  at::Tensor scales;
};

// Errors: unsupported, naming the field, for what this layout cannot hold: other bits than 4, a quantized head.
void check_awq_gemm(const QuantizationSpec& spec);

// 4 bit only; out_features must be a multiple of 8. Errors: invalid argument.
PackedGemm pack_awq_gemm(const QuantizedWeight& weight);

// int32 [positions, out / 8] -> uint8 [out, positions]: of qweight and of qzeros.
at::Tensor unpack_awq_codes(const at::Tensor& packed);

// Errors: corruption when the three shapes do not fit each other.
void check_packed_gemm(const PackedGemm& packed);

// The inverse. Errors: those of check_packed_gemm.
QuantizedWeight unpack_awq_gemm(const at::Tensor& qweight, const at::Tensor& qzeros, const at::Tensor& scales);

}  // namespace salient::quant
