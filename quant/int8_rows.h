// Activations, keys and values in 8 bits: a row of numbers as int8 codes with one scale.
//
//   scale = max |x| / half_range    x ~ code * scale    code = round(clamp(x / scale, -128, 127)), ties to even
//
// With a half range of 127.5 this is what compressed-tensors computes for {num_bits: 8, type: int, symmetric: true, strategy:
// token, dynamic: true} (quantization/utils/helpers.py, calculate_qparams: half of the 255 steps). The largest magnitude then lies
// on the edge between two codes, and the last bit of a sum may decide which: with 127 it is a code. Always in float32, whatever the
// input's type is: x differs from code * scale by at most scale / 2, and by float32's rounding of that.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace salient::quant {

inline constexpr float kCompressedTensorsHalfRange = 127.5f;
inline constexpr float kStableHalfRange = 127.0f;

struct Int8Rows {
  at::Tensor codes;   // int8 [..., n]
  at::Tensor scales;  // float32 [...]: the codes' shape without its last size
};

// x: float [..., n], any device. `scale`: float32, expands to x's shape without its last size (a stored scale, from calibration):
// larger numbers are cut off at -128 and 127 of its steps, and `scales` is a view of it. Undefined: every row its own, from
// `half_range`. A row that is not finite gives a scale that is not finite.
Int8Rows to_int8_rows(const at::Tensor& x, float half_range, const at::Tensor& scale = {});

// One row of n numbers in this thread, as the above. `stored`: the scale, where there is one. Returns the scale.
float to_int8_row(const float* x, int64_t n, float half_range, std::optional<float> stored, int8_t* codes);

// code * scale, [..., n] in `dtype`.
at::Tensor from_int8_rows(const Int8Rows& rows, at::ScalarType dtype);

// x as it is after both, in its own dtype, as compressed-tensors rounds: what a runtime with 8-bit activations computes with.
at::Tensor round_to_int8_rows(const at::Tensor& x);

}  // namespace salient::quant
