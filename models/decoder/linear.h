// A linear layer, in float or from codes of 2 to 8 bits, with inputs as they are or in 8 bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>

#include "models/decoder/operator_linear.h"
#include "models/decoder/packed_kernel.h"
#include "quant/kernels/interleaved_weight.h"

namespace salient::models {

// `activation_bits`: 16 = the input is multiplied as it is, 8 = it is rounded to int8 first, each row (token) with a scale of its
// own (quant/int8_rows.h), and the product taken in floats: on other devices than the CPU, and for groups that IntegerLinear does
// not take.

struct FloatLinear {
  at::Tensor weight;        // float [out_features, in_features]; float16 and bfloat16 also go with an input in float32, on the CPU
  at::Tensor bias;          // float [out_features], or undefined
  bool from_codes = false;  // stored in codes whose order no layout below has (GPTQ's), dequantized when it was loaded
  int activation_bits = 16;
};

// y = x W^T + b with W[n, k] = (code[n, k] - zero[n, k / group_size]) * scale[n, k / group_size].
//
// The codes' order in `packed` is described in models/decoder/packed_kernel.h.
//
// On the CPU libtorch's own int4 operator (aten::_weight_int4pack_mm_for_cpu, 2.13) is not used; other devices: OperatorLinear. For
// float32 it is scalar code: 31 ms for one row of 4096 x 4096 on two cores with AVX-512, where the dense product takes 2.7 and this
// layout 1.0. For bfloat16 it is faster with up to 16 rows (0.43 ms for one, here 1.1), but its layout differs by processor and
// cannot be read back to dequantize, which prompts need.
struct PackedLinear {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = 0;  // already resolved: in_features for per-channel
  at::Tensor packed;       // uint8 [out_features, in_features / 2]
  at::Tensor scales;       // float32 [out_features, in_features / group_size]
  at::Tensor zeros;        // uint8, the same shape, 0..15
  at::Tensor bias;         // compute dtype [out_features], or undefined
  int activation_bits = 16;
};

// The same function, one code in a byte: for codes of more than 4 bits and odd group sizes. Always dequantized before the product.
struct ByteLinear {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = 0;
  at::Tensor codes;   // uint8 [out_features, in_features]
  at::Tensor scales;  // float32 [out_features, in_features / group_size]
  at::Tensor zeros;   // uint8, the same shape
  at::Tensor bias;    // compute dtype [out_features], or undefined
  int activation_bits = 16;
};

// The same codes on the CPU, for inputs that are rounded to 8 bits with a scale for each row: quant/kernels/integer_product.h.
// Summed as integers, in an order that depends neither on the processor nor on the other rows.
struct IntegerLinear {
  quant::InterleavedWeight weight;
  at::Tensor bias;  // compute dtype [out_features], or undefined
};

using Linear = std::variant<FloatLinear, PackedLinear, ByteLinear, IntegerLinear, OperatorLinear>;

// codes: uint8 [out, in] in 0..15; zeros: uint8 [out, groups]; scales: float [out, groups]; all on one device.
// bias: float [out] or undefined, converted to `compute_dtype`. Errors: invalid argument for shapes that do not fit, a group size
// that is odd or does not divide, codes or zeros above 15.
PackedLinear make_packed_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                                int64_t group_size, at::ScalarType compute_dtype);

// The same for codes of any width in 0..255 and any group size that divides: packed where they fit into 4 bits.
Linear make_quantized_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                             int64_t group_size, at::ScalarType compute_dtype);

// The same from AutoAWQ's GEMM layout, on the CPU and contiguous. Errors: corruption for shapes that do not fit each other.
Linear make_quantized_linear(const quant::PackedGemm& packed, const at::Tensor& bias, at::ScalarType compute_dtype);

// Of a linear on the CPU, whose memory it reads.
PackedView view_of(const PackedLinear& linear);

// Whether the weight is in codes.
bool is_quantized(const Linear& linear);

// A linear in codes on the CPU as an IntegerLinear, whose own memory replaces the codes'; any other, or one with groups of more
// than quant::kMaxIntegerGroup channels, as it is.
Linear with_int8_activations(const Linear& linear);
// The way back, which loses nothing: an IntegerLinear as make_quantized_linear makes it; any other as it is.
Linear with_float_activations(const Linear& linear);

// Sets the activation bits (8 or 16) of a linear that is in codes or was: an IntegerLinear for 8 bits where there can be one, else
// the field. Leaves others as they are. Returns whether it was set.
bool set_activation_bits(Linear& linear, int bits);

// x: [..., in_features] -> [..., out_features], in x's dtype. Packed weights, except for 8-bit activations, are dequantized in
// float32; beyond a few rows of x in blocks of output channels, so that at most kDequantizedElements of them are in memory at a
// time (kDequantizedElementsOnDevice on other devices than the CPU).
at::Tensor forward(const Linear& linear, const at::Tensor& x);
inline constexpr int64_t kDequantizedElements = int64_t{1} << 21;
// A block takes a device a dozen kernels, whose starts cost the same whatever its size: most linears should be one. 256 MiB of
// float32, and half of that again while they are made.
inline constexpr int64_t kDequantizedElementsOnDevice = int64_t{1} << 26;

// The weight in float32, [out_features, in_features]: for references and tests.
at::Tensor dense_weight(const Linear& linear);
uint64_t memory_bytes(const Linear& linear);
uint64_t memory_bytes(const at::Tensor& tensor);  // 0 where it is undefined
// The same layer with all tensors on `device`. An IntegerLinear becomes with_float_activations of it on other devices than the CPU.
Linear to_device(const Linear& linear, at::Device device);
// The same, in the form that runs fastest there: with inputs in bfloat16 a PackedLinear becomes an OperatorLinear where the device
// has_int4_operator and the shape fits_operator.
Linear place(const Linear& linear, at::Device device, at::ScalarType compute_dtype);

}  // namespace salient::models
