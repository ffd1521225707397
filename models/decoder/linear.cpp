#include "models/decoder/linear.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "models/decoder/float_product.h"
#include "models/decoder/packed_kernel.h"
#include "quant/gemm_pieces.h"
#include "quant/int8_rows.h"
#include "quant/kernels/activations.h"
#include "quant/kernels/half_product.h"
#include "quant/kernels/integer_product.h"

namespace salient::models {

PackedView view_of(const PackedLinear& linear) {
  return {linear.in_features, linear.group_size, linear.packed.const_data_ptr<uint8_t>(), linear.scales.const_data_ptr<float>(),
          linear.zeros.const_data_ptr<uint8_t>()};
}

namespace {

// Up to this many rows of x are multiplied with codes unpacked in registers; for more, blocks of the weight are dequantized and
// given to the matrix product. Best of 15 on one core with AVX-512, 4096 x 4096 in groups of 128, in milliseconds:
//              rows  registers  dequantized  float weight
//   float32       1        2.2          3.5           3.5
//                 4        4.7         11            12
//                 8       13           13            14
//                12       18           14            16
//   bfloat16      1        2.1          4.1           2.9
//                 2        4.1          4.1           2.7
//                 4        5.2          4.4           2.7
int64_t max_register_rows(at::ScalarType dtype) { return dtype == at::kFloat ? 8 : 2; }

constexpr int64_t kMaxHalfProductRows = 12;  // beyond them a float16 weight is converted in blocks
constexpr int kHighestHalf = 15;             // code in half a byte
constexpr int64_t kGrainElements = 1 << 15;

ByteView view_of(const ByteLinear& linear) {
  return {linear.in_features, linear.group_size, linear.codes.const_data_ptr<uint8_t>(), linear.scales.const_data_ptr<float>(),
          linear.zeros.const_data_ptr<uint8_t>()};
}

void dequantize_rows(const PackedView& view, int64_t begin, int64_t end, float* out) { packed_dequantize(view, begin, end, out); }
void dequantize_rows(const PackedView& view, int64_t begin, int64_t end, uint16_t* out) {
  packed_dequantize_bfloat16(view, begin, end, out);
}
void dequantize_rows(const ByteView& view, int64_t begin, int64_t end, float* out) { byte_dequantize(view, begin, end, out); }
void dequantize_rows(const ByteView& view, int64_t begin, int64_t end, uint16_t* out) {
  byte_dequantize_bfloat16(view, begin, end, out);
}

bool is_on_cpu(const PackedLinear& linear) { return linear.packed.is_cpu(); }
bool is_on_cpu(const ByteLinear& linear) { return linear.codes.is_cpu(); }

// codes: [count, in_features], of the output channels from `begin` on
template <typename Codes>
at::Tensor dequantize_codes(const Codes& linear, const at::Tensor& codes, int64_t begin) {
  const int64_t count = codes.size(0);
  const at::Tensor zeros = linear.zeros.narrow(0, begin, count).unsqueeze(2).to(at::kFloat);
  const at::Tensor scales = linear.scales.narrow(0, begin, count).unsqueeze(2);
  return codes.view({count, -1, linear.group_size}).to(at::kFloat).sub_(zeros).mul_(scales).view({count, linear.in_features});
}

at::Tensor dequantize_with_operators(const ByteLinear& linear, int64_t begin, int64_t end) {
  return dequantize_codes(linear, linear.codes.narrow(0, begin, end - begin), begin);
}

// Codes of the output channels [begin, end) in their natural order, uint8 [end - begin, in_features], with tensor operators: any
// device.
at::Tensor natural_codes(const PackedLinear& linear, int64_t begin, int64_t end) {
  const int64_t count = end - begin;
  const at::Tensor bytes = linear.packed.narrow(0, begin, count);
  at::Tensor codes;
  if (is_wide(linear.in_features, linear.group_size)) {
    const at::Tensor words = bytes.view(at::kInt).view({count, -1, 1, kWideLanes});
    const at::Tensor shifts = at::arange(0, 32, 4, words.options()).view({8, 1});  // of a word's eight codes
    codes = words.__rshift__(shifts).bitwise_and_(15);
  } else {
    codes = at::stack({bytes.bitwise_and(15), bytes.__rshift__(4)}, 2);
  }
  return codes.reshape({count, linear.in_features}).to(at::kByte);
}

// Output channels [begin, end) in float32: any device.
at::Tensor dequantize_with_operators(const PackedLinear& linear, int64_t begin, int64_t end) {
  return dequantize_codes(linear, natural_codes(linear, begin, end), begin);
}

template <typename Codes>
at::Tensor dequantize_block(const Codes& linear, int64_t begin, int64_t end, at::ScalarType dtype) {
  if (!is_on_cpu(linear)) return dequantize_with_operators(linear, begin, end).to(dtype);
  const auto view = view_of(linear);
  const int64_t width = linear.in_features;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / width);
  if (dtype == at::kBFloat16) {
    at::Tensor block = at::empty({end - begin, width}, at::kBFloat16);
    auto* out = static_cast<uint16_t*>(block.data_ptr());
    at::parallel_for(begin, end, grain,
                     [&](int64_t from, int64_t to) { dequantize_rows(view, from, to, out + (from - begin) * width); });
    return block;
  }
  at::Tensor block = at::empty({end - begin, width}, at::kFloat);
  auto* out = block.data_ptr<float>();
  at::parallel_for(begin, end, grain,
                   [&](int64_t from, int64_t to) { dequantize_rows(view, from, to, out + (from - begin) * width); });
  return block.to(dtype);
}

// x: [rows, in_features]
at::Tensor multiply_in_registers(const PackedLinear& linear, const at::Tensor& x) {
  const at::Tensor input = x.to(at::kFloat).contiguous();
  at::Tensor output = at::empty({x.size(0), linear.out_features}, at::kFloat);
  const PackedView view = view_of(linear);
  const at::Tensor numbers = at::empty_like(input);
  const at::Tensor sums = at::empty({x.size(0), linear.in_features / linear.group_size}, at::kFloat);
  prepare_packed_input(view, input.const_data_ptr<float>(), x.size(0), numbers.mutable_data_ptr<float>(),
                       sums.mutable_data_ptr<float>());
  const PackedInput prepared{x.size(0), numbers.const_data_ptr<float>(), sums.const_data_ptr<float>()};
  auto* out = output.data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / linear.in_features);
  at::parallel_for(0, linear.out_features, grain,
                   [&](int64_t from, int64_t to) { packed_product(view, prepared, out, linear.out_features, from, to); });
  output = output.to(x.scalar_type());
  return linear.bias.defined() ? output.add_(linear.bias) : output;
}

// rows_of(begin, end): the weight of these output channels in x's dtype. x: [rows, in_features]
template <typename RowsOf>
at::Tensor multiply_in_blocks(const at::Tensor& x, int64_t out_features, const at::Tensor& bias, RowsOf rows_of) {
  const int64_t elements = x.is_cpu() ? kDequantizedElements : kDequantizedElementsOnDevice;
  const int64_t block = std::max<int64_t>(16, elements / x.size(1));
  if (out_features <= block) return float_product(x, rows_of(0, out_features), bias);
  at::Tensor output = at::empty({x.size(0), out_features}, x.options());
  for (int64_t begin = 0; begin < out_features; begin += block) {
    const int64_t end = std::min(begin + block, out_features);
    const at::Tensor of_block = bias.defined() ? bias.narrow(0, begin, end - begin) : at::Tensor();
    output.narrow(1, begin, end - begin).copy_(float_product(x, rows_of(begin, end), of_block));
  }
  return output;
}

template <typename Codes>
at::Tensor multiply_in_blocks(const Codes& linear, const at::Tensor& x) {
  return multiply_in_blocks(x, linear.out_features, linear.bias,
                            [&](int64_t begin, int64_t end) { return dequantize_block(linear, begin, end, x.scalar_type()); });
}

at::Tensor multiply_integers(const IntegerLinear& linear, const at::Tensor& x) {
  const quant::QuantizedRows rows = quant::quantize_rows(x.to(at::kFloat), linear.weight.group_size);
  const at::Tensor output = quant::integer_product(linear.weight, rows).to(x.scalar_type());
  return linear.bias.defined() ? output.add_(linear.bias) : output;
}

// float16 or bfloat16 weight, float32 x: [rows, in_features]
at::Tensor multiply_halves(const FloatLinear& linear, const at::Tensor& x) {
  if (x.size(0) > kMaxHalfProductRows) {
    return multiply_in_blocks(
        x, linear.weight.size(0), linear.bias.defined() ? linear.bias.to(at::kFloat) : linear.bias,
        [&](int64_t begin, int64_t end) { return linear.weight.narrow(0, begin, end - begin).to(at::kFloat); });
  }
  const at::Tensor output = quant::half_product(linear.weight.contiguous(), x);
  return linear.bias.defined() ? output.add_(linear.bias) : output;
}

bool is_half(const at::Tensor& weight) { return weight.scalar_type() == at::kHalf || weight.scalar_type() == at::kBFloat16; }

void check_codes(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, int64_t group_size) {
  if (codes.dim() != 2 || codes.scalar_type() != at::kByte || zeros.scalar_type() != at::kByte) {
    fail(ErrorKind::kInvalidArgument, "packed linear: codes and zeros must be uint8, codes of two dimensions, found {} dimensions",
         codes.dim());
  }
  const int64_t in_features = codes.size(1);
  if (group_size < 1 || in_features % group_size != 0) {
    fail(ErrorKind::kInvalidArgument, "packed linear: group_size {} does not divide the {} input features", group_size,
         in_features);
  }
  const std::vector<int64_t> expected = {codes.size(0), in_features / group_size};
  if (zeros.sizes() != expected || scales.sizes() != expected) {
    fail(ErrorKind::kInvalidArgument,
         "packed linear: zeros are [{}] and scales [{}], expected [{}] for {} input features in groups of {}",
         fmt::join(zeros.sizes(), ", "), fmt::join(scales.sizes(), ", "), fmt::join(expected, ", "), in_features, group_size);
  }
}

bool fits_half(const at::Tensor& values) { return values.numel() == 0 || values.max().item<int64_t>() <= kHighestHalf; }

// Of codes, zeros and a group size that have been checked.
PackedLinear pack_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                         int64_t group_size, at::ScalarType compute_dtype) {
  PackedLinear linear;
  linear.out_features = codes.size(0);
  linear.in_features = codes.size(1);
  linear.group_size = group_size;
  const bool wide = is_wide(linear.in_features, group_size);
  const at::Tensor source = codes.cpu().contiguous();
  at::Tensor packed = at::empty({linear.out_features, linear.in_features / 2}, at::kByte);
  const auto* from = source.const_data_ptr<uint8_t>();
  auto* to = packed.data_ptr<uint8_t>();
  at::parallel_for(
      0, linear.out_features, std::max<int64_t>(1, kGrainElements / linear.in_features), [&](int64_t begin, int64_t end) {
        pack_codes(from + begin * linear.in_features, end - begin, linear.in_features, wide, to + begin * linear.in_features / 2);
      });
  linear.packed = packed.to(codes.device());
  linear.scales = scales.to(at::kFloat).contiguous();
  linear.zeros = zeros.contiguous();
  if (bias.defined()) linear.bias = bias.to(compute_dtype);
  return linear;
}

// x: [..., in_features]; multiply: [rows, in_features] -> [rows, out_features]
template <typename Multiply>
at::Tensor forward_rows(int64_t in_features, int64_t out_features, const at::Tensor& x, Multiply multiply) {
  if (x.size(-1) != in_features) {
    fail(ErrorKind::kInternal, "linear: the input has {} features, expected {}", x.size(-1), in_features);
  }
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = out_features;
  return multiply(x.reshape({-1, in_features})).view(shape);
}

// Whether the input is rounded before the product, which takes the rounded values as floats. An IntegerLinear rounds in its kernel.
bool rounds_activations(const Linear& linear) {
  return std::visit(
      [](const auto& kind) {
        if constexpr (requires { kind.activation_bits; }) return kind.activation_bits == 8;
        return false;
      },
      linear);
}

}  // namespace

PackedLinear make_packed_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                                int64_t group_size, at::ScalarType compute_dtype) {
  const at::NoGradGuard no_grad;
  check_codes(codes, zeros, scales, group_size);
  if (group_size % 2 != 0) fail(ErrorKind::kInvalidArgument, "packed linear: group_size {} must be even", group_size);
  if (!fits_half(codes) || !fits_half(zeros)) fail(ErrorKind::kInvalidArgument, "packed linear: codes and zeros must be 0..15");
  return pack_linear(codes, zeros, scales, bias, group_size, compute_dtype);
}

Linear make_quantized_linear(const quant::PackedGemm& packed, const at::Tensor& bias, at::ScalarType compute_dtype) {
  const at::NoGradGuard no_grad;
  quant::check_packed_gemm(packed);
  PackedLinear linear;
  linear.in_features = packed.qweight.size(0);
  linear.out_features = packed.scales.size(1);
  linear.group_size = linear.in_features / packed.scales.size(0);
  if (!is_wide(linear.in_features, linear.group_size)) {
    const quant::QuantizedWeight natural = quant::unpack_awq_gemm(packed.qweight, packed.qzeros, packed.scales);
    return make_quantized_linear(natural.codes, natural.zeros, natural.scales, bias, linear.group_size, compute_dtype);
  }
  const int64_t row_bytes = linear.in_features / 2;
  linear.packed = at::empty({linear.out_features, row_bytes}, at::kByte);
  auto* const to = linear.packed.data_ptr<uint8_t>();
  static_assert(quant::kPiecePositions == kWideChunk);
  quant::each_gemm_piece(packed.qweight, [&](const quant::GemmPiece& piece) {
    pack_wide_chunk(piece.codes, quant::kPieceChannels, piece.channels, to + piece.channel * row_bytes + piece.position / 2,
                    row_bytes);
  });
  linear.zeros = quant::unpack_awq_codes(packed.qzeros);
  linear.scales = packed.scales.to(at::kFloat).t().contiguous();
  if (bias.defined()) linear.bias = bias.to(compute_dtype);
  return linear;
}

Linear make_quantized_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, const at::Tensor& bias,
                             int64_t group_size, at::ScalarType compute_dtype) {
  const at::NoGradGuard no_grad;
  check_codes(codes, zeros, scales, group_size);
  if (group_size % 2 == 0 && fits_half(codes) && fits_half(zeros))
    return pack_linear(codes, zeros, scales, bias, group_size, compute_dtype);
  ByteLinear linear{
      codes.size(1), codes.size(0), group_size, codes.contiguous(), scales.to(at::kFloat).contiguous(), zeros.contiguous(), {}};
  if (bias.defined()) linear.bias = bias.to(compute_dtype);
  return linear;
}

bool is_quantized(const Linear& linear) { return !std::holds_alternative<FloatLinear>(linear); }

Linear with_int8_activations(const Linear& linear) {
  const auto interleaved = [&](const auto& coded, const at::Tensor& codes) -> Linear {
    return IntegerLinear{quant::interleave(codes, coded.zeros, coded.scales, coded.group_size), coded.bias};
  };
  if (const auto* packed = std::get_if<PackedLinear>(&linear)) {
    if (is_on_cpu(*packed) && packed->group_size <= quant::kMaxIntegerGroup)
      return interleaved(*packed, natural_codes(*packed, 0, packed->out_features));
  } else if (const auto* bytes = std::get_if<ByteLinear>(&linear)) {
    if (is_on_cpu(*bytes) && bytes->group_size <= quant::kMaxIntegerGroup) return interleaved(*bytes, bytes->codes);
  }
  return linear;
}

Linear with_float_activations(const Linear& linear) {
  const auto* integer = std::get_if<IntegerLinear>(&linear);
  if (integer == nullptr) return linear;
  const quant::InterleavedWeight& weight = integer->weight;
  const at::ScalarType dtype = integer->bias.defined() ? integer->bias.scalar_type() : at::kFloat;
  return make_quantized_linear(quant::natural_codes(weight), quant::natural_zeros(weight), quant::natural_scales(weight),
                               integer->bias, weight.group_size, dtype);
}

bool set_activation_bits(Linear& linear, int bits) {
  if (const auto* plain = std::get_if<FloatLinear>(&linear); plain != nullptr && !plain->from_codes) return false;
  linear = bits == 8 ? with_int8_activations(linear) : with_float_activations(linear);
  std::visit(
      [&](auto& kind) {
        if constexpr (requires { kind.activation_bits; }) kind.activation_bits = bits;
      },
      linear);
  return true;
}

at::Tensor forward(const Linear& linear, const at::Tensor& given) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = rounds_activations(linear) ? quant::round_to_int8_rows(given) : given;
  if (const auto* plain = std::get_if<FloatLinear>(&linear)) {
    const bool mixed = x.is_cpu() && x.scalar_type() == at::kFloat && plain->weight.defined() && is_half(plain->weight);
    if (!mixed) return float_product(x, plain->weight, plain->bias);
    return forward_rows(plain->weight.size(1), plain->weight.size(0), x,
                        [&](const at::Tensor& rows) { return multiply_halves(*plain, rows); });
  }
  if (const auto* bytes = std::get_if<ByteLinear>(&linear)) {
    return forward_rows(bytes->in_features, bytes->out_features, x,
                        [&](const at::Tensor& rows) { return multiply_in_blocks(*bytes, rows); });
  }
  if (const auto* integer = std::get_if<IntegerLinear>(&linear)) {
    return forward_rows(integer->weight.in_features, integer->weight.out_features, x,
                        [&](const at::Tensor& rows) { return multiply_integers(*integer, rows); });
  }
  if (const auto* placed = std::get_if<OperatorLinear>(&linear)) {
    return forward_rows(placed->in_features, placed->out_features, x,
                        [&](const at::Tensor& rows) { return operator_product(*placed, rows); });
  }
  const auto& packed = std::get<PackedLinear>(linear);
  return forward_rows(packed.in_features, packed.out_features, x, [&](const at::Tensor& rows) {
    const bool in_registers = rows.is_cpu() && rows.size(0) <= max_register_rows(x.scalar_type());
    return in_registers ? multiply_in_registers(packed, rows) : multiply_in_blocks(packed, rows);
  });
}

at::Tensor dense_weight(const Linear& linear) {
  const at::NoGradGuard no_grad;
  if (const auto* plain = std::get_if<FloatLinear>(&linear)) return plain->weight.to(at::kFloat);
  if (const auto* bytes = std::get_if<ByteLinear>(&linear)) return dequantize_with_operators(*bytes, 0, bytes->out_features);
  if (std::holds_alternative<IntegerLinear>(linear)) return dense_weight(with_float_activations(linear));
  if (const auto* placed = std::get_if<OperatorLinear>(&linear)) return dense_weight(*placed);
  const auto& packed = std::get<PackedLinear>(linear);
  return dequantize_with_operators(packed, 0, packed.out_features);
}

uint64_t memory_bytes(const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : 0; }

uint64_t memory_bytes(const Linear& linear) {
  const auto bytes = [](const at::Tensor& tensor) { return memory_bytes(tensor); };
  if (const auto* plain = std::get_if<FloatLinear>(&linear)) return bytes(plain->weight) + bytes(plain->bias);
  if (const auto* coded = std::get_if<ByteLinear>(&linear)) {
    return bytes(coded->codes) + bytes(coded->scales) + bytes(coded->zeros) + bytes(coded->bias);
  }
  if (const auto* integer = std::get_if<IntegerLinear>(&linear)) return quant::memory_bytes(integer->weight) + bytes(integer->bias);
  if (const auto* placed = std::get_if<OperatorLinear>(&linear))
    return bytes(placed->packed) + bytes(placed->scales_and_zeros) + bytes(placed->bias);
  const auto& packed = std::get<PackedLinear>(linear);
  return bytes(packed.packed) + bytes(packed.scales) + bytes(packed.zeros) + bytes(packed.bias);
}

Linear to_device(const Linear& linear, at::Device device) {
  const auto move = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(device) : tensor; };
  if (const auto* plain = std::get_if<FloatLinear>(&linear)) {
    return FloatLinear{move(plain->weight), move(plain->bias), plain->from_codes, plain->activation_bits};
  }
  if (const auto* coded = std::get_if<ByteLinear>(&linear)) {
    ByteLinear moved = *coded;
    for (at::Tensor* tensor : {&moved.codes, &moved.scales, &moved.zeros, &moved.bias}) *tensor = move(*tensor);
    return moved;
  }
  if (std::holds_alternative<IntegerLinear>(linear))
    return device.is_cpu() ? linear : to_device(with_float_activations(linear), device);
  if (std::holds_alternative<OperatorLinear>(linear)) {
    const at::Device place = std::get<OperatorLinear>(linear).packed.device();
    if (place.type() != device.type() || (device.has_index() && place.index() != device.index()))
      fail(ErrorKind::kInternal, "linear: codes in the order of one device cannot be moved to {}", device.str());
    return linear;
  }
  PackedLinear packed = std::get<PackedLinear>(linear);
  for (at::Tensor* tensor : {&packed.packed, &packed.scales, &packed.zeros, &packed.bias}) *tensor = move(*tensor);
  return packed;
}

Linear place(const Linear& linear, at::Device device, at::ScalarType compute_dtype) {
  Linear placed = to_device(linear, device);
  const auto* packed = std::get_if<PackedLinear>(&placed);
  const bool fits = packed != nullptr && compute_dtype == at::kBFloat16 &&
                    fits_operator(packed->in_features, packed->out_features, packed->group_size) && has_int4_operator(device);
  if (!fits) return placed;
  OperatorLinear faster = make_operator_linear(natural_codes(*packed, 0, packed->out_features), packed->zeros, packed->scales,
                                               packed->bias, packed->group_size);
  faster.activation_bits = packed->activation_bits;
  return faster;
}

}  // namespace salient::models
