// A linear layer, in float or from packed 4-bit weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>

namespace salient::models {

struct FloatLinear {
  at::Tensor weight;  // float [out_features, in_features]
  at::Tensor bias;    // float [out_features], or undefined
};

// y = x W^T + b with W[n, k] = (code[n, k] - zero[n, k / group_size]) * scale[n, k / group_size].
struct PackedLinear {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = 0;   // already resolved: in_features for per-channel
  at::Tensor packed;        // libtorch's int4 layout (aten::_convert_weight_to_int4pack_for_cpu), or codes uint8 [out, in/2] for the fallback
  at::Tensor scales;        // compute dtype [in_features / group_size, out_features, 2]: scale, and zero in that operator's meaning
  bool use_int4_operator = false;
  at::Tensor bias;          // compute dtype [out_features], or undefined
};

using Linear = std::variant<FloatLinear, PackedLinear>;

// codes: uint8 [out, in] in 0..15; zeros: uint8 [out, groups]; scales: float [out, groups]. Chooses libtorch's int4 operator where its shape
// rules allow it, a dequantizing fallback elsewhere.
PackedLinear make_packed_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                                int64_t group_size, at::ScalarType compute_dtype);

// x: [..., in_features] -> [..., out_features], in x's dtype.
at::Tensor forward(const Linear& linear, const at::Tensor& x);
// The weight in float32, [out_features, in_features]: for references and tests.
at::Tensor dense_weight(const Linear& linear);
uint64_t memory_bytes(const Linear& linear);

}  // namespace salient::models
