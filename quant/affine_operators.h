// Affine quantization by groups with libtorch's operators alone: for tensors of other devices than the CPU, whose loops are in
// quant/affine.cpp. Each operation is that of the loops, in float32, so that codes, zero points, scales and errors are the same
// bits.
#pragma once

#include "quant/affine.h"

namespace salient::quant::operators {

GroupRanges group_ranges(const at::Tensor& weight, int64_t group_size);
QuantizedWeight quantize_affine(const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip);
at::Tensor dequantize(const QuantizedWeight& quantized);
// float32 [out_features, groups, group_size]. s, clip, ranges: as of write_quantization_error.
at::Tensor quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                              const GroupRanges* ranges);

}  // namespace salient::quant::operators
