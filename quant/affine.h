// Affine (integer) weight quantization by groups of input channels: w ~ (code - zero) * scale.
//
// Codes are computed with the scales that will be stored: scales are rounded to fp16 first, so that what a runtime dequantizes is
// what was searched for. The range of an asymmetric group is extended to contain 0, so that a zero weight stays zero and the zero
// point fits its bits.
//
// Tensors may lie on any device, all on the same; results lie there, too.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace salient::quant {

struct AffineOptions {
  int bits = 4;
  int64_t group_size = 128;                // resolved: divides in_features
  bool zero_point = true;                  // false: symmetric, zero = 2^(bits-1)
  at::ScalarType scale_dtype = at::kHalf;  // float16 or bfloat16: what scales are rounded to before codes are chosen
};

struct QuantizedWeight {
  at::Tensor codes;   // uint8 [out_features, in_features], 0 .. 2^bits - 1
  at::Tensor zeros;   // uint8 [out_features, groups]; float32 where they lie between codes, as the minimums of ggml's blocks do
  at::Tensor scales;  // float32 [out_features, groups], every value exact in fp16
};

// What to clip each group to before rounding, as factors of its own extremes; both 1 = the full range.
struct ClipRange {
  at::Tensor low;   // float32 [out_features, groups], multiplies min(w, 0)
  at::Tensor high;  // float32 [out_features, groups], multiplies max(w, 0)
};

ClipRange to_device(const ClipRange& range, at::Device device);  // undefined tensors stay so

// weight: float32 [out_features, in_features], finite. `clip` may be null. Errors: invalid argument when group_size does not
// divide.
QuantizedWeight quantize_affine(const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip = nullptr);

QuantizedWeight to_device(const QuantizedWeight& weight, at::Device device);

// float32 [out_features, in_features]
at::Tensor dequantize(const QuantizedWeight& quantized);

// Q(weight * s) / s - weight in one pass, float32 [out_features, in_features]: the error that a scale candidate leaves.
// s: float32 [in_features], or undefined for all ones.
at::Tensor quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options,
                              const ClipRange* clip = nullptr);

// The extremes of each group, 0 where all its weights lie on the other side.
struct GroupRanges {
  at::Tensor low;   // float32 [out_features, groups], <= 0
  at::Tensor high;  // the same, >= 0
};

// weight: float32 [out_features, in_features].
GroupRanges group_ranges(const at::Tensor& weight, int64_t group_size);

// The same as quantization_error, written to `error`: contiguous float32 of the weight's shape, or [groups, out_features,
// group_size]. ranges: group_ranges of weight * s where they are known; null = they are looked for.
void write_quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                              const at::Tensor& error, const GroupRanges* ranges = nullptr);

// The scale as it is stored in float16 or bfloat16: the nearest, between 2^-24 and 65504. Below 2^-14 fp16 loses bits but still
// works; zero would not.
float to_stored_scale(float scale, at::ScalarType dtype = at::kHalf);
inline constexpr float kLeastStoredScale = 5.9604645e-8f;  // the least fp16 subnormal
inline constexpr float kLargestStoredScale = 65504.0f;

// -1 -> in_features. Errors: invalid argument naming the sizes that do divide.
int64_t resolve_group_size(int64_t group_size, int64_t in_features);

}  // namespace salient::quant
