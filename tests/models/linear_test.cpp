#include "models/decoder/linear.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "models/decoder/packed_kernel.h"
#include "quant/int8_rows.h"

namespace salient::models {
namespace {

struct Quantized {
  at::Tensor codes;
  at::Tensor zeros;
  at::Tensor scales;
  at::Tensor bias;
  at::Tensor dense;  // computed here, from the definition
};
Quantized make(int64_t out, int64_t in, int64_t group_size) {
  at::manual_seed(out * 1000 + in);
  Quantized q;
  q.codes = at::randint(0, 16, {out, in}, at::kByte);
  q.zeros = at::randint(0, 16, {out, in / group_size}, at::kByte);
  q.scales = at::rand({out, in / group_size}) * 0.1 + 0.001;
  q.bias = at::randn({out});
  q.dense = (q.codes.to(at::kFloat) - q.zeros.to(at::kFloat).repeat_interleave(group_size, 1)) *
            q.scales.repeat_interleave(group_size, 1);
  return q;
}

struct Shape {
  int64_t out, in, group_size;
};
class Packed : public ::testing::TestWithParam<Shape> {};

TEST_P(Packed, EqualsTheDefinition) {
  const auto [out, in, group_size] = GetParam();
  const Quantized q = make(out, in, group_size);
  const Linear linear = make_packed_linear(q.codes, q.zeros, q.scales, q.bias, group_size, at::kFloat);
  EXPECT_TRUE(at::equal(dense_weight(linear), q.dense));
  for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9, 40}) {
    const at::Tensor x = at::randn({rows, in});
    const at::Tensor exact = at::linear(x.to(at::kDouble), q.dense.to(at::kDouble), q.bias.to(at::kDouble));
    const at::Tensor y = forward(linear, x);
    ASSERT_EQ(y.sizes(), exact.sizes());
    // Rounding of a sum of `in` products: a few ulps of the sum of magnitudes, |x| |W|^T.
    const at::Tensor bound = 4 * 1.2e-7 * (at::matmul(x.abs(), q.dense.abs().t()).to(at::kDouble) + 1.0);
    EXPECT_TRUE((y.to(at::kDouble) - exact).abs().le(bound).all().item<bool>())
        << rows << " rows, off by " << (y - exact).abs().max().item<double>();
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Packed,
                         ::testing::Values(Shape{48, 256, 128}, Shape{24, 256, 64}, Shape{9, 128, 32}, Shape{7, 384, 16},
                                           Shape{5, 384, 384}, Shape{6, 512, 256}, Shape{8, 96, 32}, Shape{8, 24, 8},
                                           Shape{3, 10, 2}, Shape{1, 128, 128}, Shape{16, 640, 40}),
                         [](const auto& param_info) {
                           return std::to_string(param_info.param.out) + "x" + std::to_string(param_info.param.in) + "g" +
                                  std::to_string(param_info.param.group_size);
                         });

// With 8-bit activations the product is one of integers: sums of codes times codes, group by group, times both scales.
TEST(Linear, EightBitActivationsAreAProductOfCodes) {
  for (const int64_t group_size : {32, 25}) {  // half bytes; bytes
    const int64_t in = 4 * group_size;
    const Quantized q = make(24, in, group_size);
    Linear linear = make_quantized_linear(q.codes, q.zeros, q.scales, q.bias, group_size, at::kFloat);
    const Linear plain = linear;
    EXPECT_TRUE(set_activation_bits(linear, 8));
    EXPECT_TRUE(std::holds_alternative<IntegerLinear>(to_device(linear, at::kCPU)));
    // Where there is no kernel of integers, the same product of rounded values.
    Linear in_floats = plain;
    std::visit(
        [](auto& kind) {
          if constexpr (requires { kind.activation_bits; }) kind.activation_bits = 8;
        },
        in_floats);
    for (const int64_t rows : {1, 5, 40}) {
      const at::Tensor x = at::randn({2, rows, in});
      const at::Tensor step = x.abs().amax(-1, true) / 127.5;
      const at::Tensor codes = (x / step).clamp(-128, 127).round().to(at::kDouble);
      const at::Tensor weights = (q.codes.to(at::kDouble) - q.zeros.to(at::kDouble).repeat_interleave(group_size, 1));
      at::Tensor exact = at::zeros({2, rows, 24}, at::kDouble);
      for (int64_t group = 0; group < 4; ++group) {
        const at::Tensor sums =
            at::matmul(codes.narrow(2, group * group_size, group_size), weights.narrow(1, group * group_size, group_size).t());
        exact += sums * q.scales.select(1, group).to(at::kDouble);
      }
      exact = exact * step.to(at::kDouble) + q.bias.to(at::kDouble);
      for (const Linear& rounding : {linear, in_floats})
        EXPECT_LT((forward(rounding, x).to(at::kDouble) - exact).abs().max().item<double>(), 1e-4) << rows;
      EXPECT_GT((forward(plain, x).to(at::kDouble) - exact).abs().max().item<double>(), 1e-2) << rows;
    }
    EXPECT_TRUE(set_activation_bits(linear, 16));
    const at::Tensor x = at::randn({3, in});
    EXPECT_TRUE(at::equal(forward(linear, x), forward(plain, x)));
  }
}

TEST(Linear, FloatLinearsKeepTheirInputs) {
  const Quantized q = make(8, 32, 32);
  Linear linear = FloatLinear{q.dense, {}};
  const at::Tensor x = at::randn({3, 32});
  const at::Tensor before = forward(linear, x);
  EXPECT_LT((before - at::linear(x, q.dense)).abs().max().item<double>(), 1e-4);
  EXPECT_FALSE(set_activation_bits(linear, 8));
  EXPECT_TRUE(at::equal(forward(linear, x), before));
  Linear dequantized = FloatLinear{q.dense, {}, /*from_codes=*/true};
  EXPECT_TRUE(set_activation_bits(dequantized, 8));
  EXPECT_TRUE(at::equal(forward(dequantized, x), forward(linear, quant::round_to_int8_rows(x))));
}

TEST(Linear, RowsDoNotDependOnTheBatch) {
  const Quantized q = make(64, 256, 128);
  const Linear linear = make_packed_linear(q.codes, q.zeros, q.scales, {}, 128, at::kFloat);
  const at::Tensor x = at::randn({7, 256});
  const at::Tensor together = forward(linear, x);
  for (int64_t row = 0; row < 7; ++row) EXPECT_TRUE(at::equal(forward(linear, x[row]), together[row])) << row;
}

TEST(Linear, ManyRowsInBlocksEqualTheDenseProduct) {
  const int64_t in = 4096;
  const int64_t out = kDequantizedElements / in + 40;  // one whole block and a part
  const Quantized q = make(out, in, 128);
  const Linear linear = make_packed_linear(q.codes, q.zeros, q.scales, q.bias, 128, at::kFloat);
  const at::Tensor x = at::randn({2, 10, in});
  const at::Tensor y = forward(linear, x);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 10, out}));
  EXPECT_TRUE(at::allclose(y, at::linear(x, q.dense, q.bias), 1e-4, 1e-3));
}

TEST(Linear, BfloatRoundsTheInputsAndResultOnly) {
  const Quantized q = make(64, 256, 128);
  const Linear linear = make_packed_linear(q.codes, q.zeros, q.scales, q.bias, 128, at::kBFloat16);
  for (const int64_t rows : {1, 2, 16}) {
    const at::Tensor x = at::randn({rows, 256}).to(at::kBFloat16);
    const at::Tensor y = forward(linear, x);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    const at::Tensor reference = at::linear(x.to(at::kFloat), q.dense, q.bias);
    const double worst = (y.to(at::kFloat) - reference).abs().max().item<double>();
    EXPECT_LT(worst, 0.01 * reference.abs().max().item<double>()) << rows;
    EXPECT_GT(worst, 0.0);
  }
  // The blocks' own rounding equals libtorch's.
  const at::Tensor eye = at::eye(256).to(at::kBFloat16);
  const Linear plain = make_packed_linear(q.codes, q.zeros, q.scales, {}, 128, at::kBFloat16);
  EXPECT_TRUE(at::equal(forward(plain, eye).t(), q.dense.to(at::kBFloat16)));
}

// Codes of more than 4 bits, and groups of an odd size.
TEST(Linear, BytesEqualTheDefinition) {
  for (const auto& [out, in, group_size, bits] :
       {std::tuple{48, 256, 128, 8}, {9, 96, 32, 5}, {7, 90, 45, 3}, {5, 40, 40, 6}, {3, 21, 7, 8}}) {
    at::manual_seed(in);
    const at::Tensor codes = at::randint(0, 1 << bits, {out, in}, at::kByte);
    const at::Tensor zeros = at::randint(0, 1 << bits, {out, in / group_size}, at::kByte);
    const at::Tensor scales = at::rand({out, in / group_size}) * 0.1 + 0.001;
    const at::Tensor bias = at::randn({out});
    const at::Tensor dense =
        (codes.to(at::kFloat) - zeros.to(at::kFloat).repeat_interleave(group_size, 1)) * scales.repeat_interleave(group_size, 1);
    const Linear linear = make_quantized_linear(codes, zeros, scales, bias, group_size, at::kFloat);
    ASSERT_TRUE(std::holds_alternative<ByteLinear>(linear)) << in;
    EXPECT_TRUE(is_quantized(linear));
    EXPECT_TRUE(at::equal(dense_weight(linear), dense));
    EXPECT_EQ(memory_bytes(linear), static_cast<uint64_t>(out * in + out * (in / group_size) * 5 + out * 4));
    for (const int64_t rows : {1, 3, 40}) {
      const at::Tensor x = at::randn({2, rows, in});
      // Against float64: what float32 may miss of it grows with the terms of a sum and their size.
      const at::Tensor expected = at::linear(x.to(at::kDouble), dense.to(at::kDouble), bias.to(at::kDouble));
      const double terms = at::linear(x.to(at::kDouble).abs(), dense.to(at::kDouble).abs()).max().item<double>();
      EXPECT_LT((forward(linear, x).to(at::kDouble) - expected).abs().max().item<double>(), 5e-7 * terms) << in;
    }
    const Linear half = make_quantized_linear(codes, zeros, scales, {}, group_size, at::kBFloat16);
    EXPECT_TRUE(at::equal(forward(half, at::eye(in).to(at::kBFloat16)).t(), dense.to(at::kBFloat16)));
  }
}

TEST(Linear, CodesOfUpToFourBitsArePacked) {
  const Quantized q = make(8, 128, 64);
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(make_quantized_linear(q.codes, q.zeros, q.scales, {}, 64, at::kFloat)));
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(
      make_quantized_linear(q.codes.remainder(8), q.zeros.remainder(8), q.scales, {}, 64, at::kFloat)));
  EXPECT_FALSE(is_quantized(FloatLinear{q.dense, {}}));
}

TEST(Linear, CountsPackedBytes) {
  const Quantized q = make(64, 256, 128);
  const Linear linear = make_packed_linear(q.codes, q.zeros, q.scales, q.bias, 128, at::kFloat);
  EXPECT_EQ(memory_bytes(linear), 64u * 128 + 64 * 2 * (4 + 1) + 64 * 4);
  EXPECT_EQ(memory_bytes(FloatLinear{q.dense, {}}), 64u * 256 * 4);
}

// Channel k of one row has code k % 16: word i of a chunk holds channels i, i + 16, ..., which are all i.
TEST(Linear, LayoutIsTheDocumentedOne) {
  const at::Tensor codes = at::arange(128).remainder(16).to(at::kByte).view({1, 128});
  const PackedLinear wide = make_packed_linear(codes, at::zeros({1, 1}, at::kByte), at::ones({1, 1}), {}, 128, at::kFloat);
  const at::Tensor words = wide.packed.view(at::kInt).view(-1);
  EXPECT_EQ(words[1].item<int>(), 0x11111111);
  EXPECT_EQ(words[7].item<int>(), 0x77777777);
  const PackedLinear pairs = make_packed_linear(at::tensor({1, 2, 3, 4}, at::kByte).view({1, 4}), at::zeros({1, 1}, at::kByte),
                                                at::ones({1, 1}), {}, 4, at::kFloat);
  EXPECT_EQ(pairs.packed[0][0].item<int>(), 0x21);
  EXPECT_EQ(pairs.packed[0][1].item<int>(), 0x43);
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const Quantized q = make(8, 128, 64);
  const auto expect_error = [](const auto& body) {
    try {
      body();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    }
  };
  expect_error([&] { make_packed_linear(q.codes, q.zeros, q.scales, {}, 48, at::kFloat); });
  expect_error([&] { make_packed_linear(q.codes, q.zeros, q.scales, {}, 1, at::kFloat); });
  expect_error([&] { make_packed_linear(q.codes, q.zeros, q.scales, {}, 128, at::kFloat); });
  expect_error([&] { make_packed_linear(q.codes + 16, q.zeros, q.scales, {}, 64, at::kFloat); });
  expect_error([&] { make_packed_linear(q.codes.to(at::kInt), q.zeros, q.scales, {}, 64, at::kFloat); });
}

}  // namespace
}  // namespace salient::models
