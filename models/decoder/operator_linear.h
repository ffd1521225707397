// 4-bit products by the operator that libtorch has for a device: bfloat16 inputs, codes that stay 4 bits wide in its memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace salient::models {

// y = x W^T + b with W[n, k] = (code[n, k] - 8) * scale[k / group_size, n] + zero[k / group_size, n], zero = (8 - zero point) *
// scale: aten::_weight_int4pack_mm, libtorch 2.13 (aten/src/ATen/native/cuda/int4mm.cu: NVIDIA from compute capability 8.0 on).
// Scales, zeros and weights are rounded to bfloat16, the zero as a multiple of the rounded scale: a weight moves by at most 1/128
// of itself and 1/32 of the step between two codes.
struct OperatorLinear {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = 0;
  at::Tensor packed;            // int32, in the order of the device's matrix units, which aten::_convert_weight_to_int4pack makes
  at::Tensor scales_and_zeros;  // bfloat16 [in_features / group_size, out_features, 2]
  at::Tensor bias;              // bfloat16 [out_features], or undefined
  int activation_bits = 16;
};

// Whether the operator takes the shape: groups of 32, 64, 128 or 256 channels, out_features in eights, in_features in 32s.
bool fits_operator(int64_t in_features, int64_t out_features, int64_t group_size);

// Whether the device has the operator, and it computes a small product as defined above. Never the CPU, whose operator has another
// name and is not used (models/decoder/linear.h).
bool test_int4_operator(at::Device device);
// The same, tested when a device is first asked about.
bool has_int4_operator(at::Device device);

// codes: uint8 [out, in] in 0..15; zeros: uint8 [out, groups] in 0..15; scales: float [out, groups]; bias: float [out] or
// undefined; all on one device that has_int4_operator, of a shape that fits_operator.
OperatorLinear make_operator_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales,
                                    const at::Tensor& bias, int64_t group_size);

// Elements of a product's input or output at most: the operator counts them in an int32, and its tiles reach beyond the last row.
inline constexpr int64_t kOperatorElements = int64_t{1} << 30;

// x: bfloat16 [rows, in_features] -> bfloat16 [rows, out_features]. So many rows at a time that neither has more than
// `most_elements`; no rows, which the operator refuses, give an empty result.
at::Tensor operator_product(const OperatorLinear& linear, const at::Tensor& x, int64_t most_elements = kOperatorElements);

// The weight that the operator multiplies with, float32 [out_features, in_features]: products of unit vectors.
at::Tensor dense_weight(const OperatorLinear& linear);

}  // namespace salient::models
