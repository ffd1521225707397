// Affine quantization by groups with libtorch's operators alone: for tensors of other devices than the CPU, whose loops are in
// quant/affine.cpp. Each operation is that of the loops, in float32, so that codes, zero points, scales and errors are the same
// bits. Shapes, dtypes and what may be null are those of the functions of the same names there, which check them.
#pragma once

#include "quant/affine.h"

namespace salient::quant::operators {

GroupRanges group_ranges(const at::Tensor& weight, int64_t group_size);
QuantizedWeight quantize_affine(const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip);
at::Tensor dequantize(const QuantizedWeight& quantized);
// What write_quantization_error writes: float32 [out_features, groups, group_size].
at::Tensor quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                              const GroupRanges* ranges);

}  // namespace salient::quant::operators
