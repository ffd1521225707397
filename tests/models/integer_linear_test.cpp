#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "models/decoder/linear.h"
#include "quant/kernels/activations.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

struct Quantized {
  at::Tensor codes;
  at::Tensor zeros;
  at::Tensor scales;
  at::Tensor bias;
};
Quantized make(int64_t out, int64_t in, int64_t group_size, int levels) {
  at::manual_seed(out * 1000 + in);
  return {at::randint(0, levels, {out, in}, at::kByte), at::randint(0, levels, {out, in / group_size}, at::kByte),
          at::rand({out, in / group_size}) * 0.1 + 0.001, at::randn({out})};
}

struct Shape {
  int64_t out, in, group_size;
  int levels;
};
constexpr Shape kShapes[] = {{48, 256, 128, 16}, {9, 96, 32, 16},   {7, 90, 45, 8},
                             {33, 256, 64, 256}, {5, 384, 384, 16}, {20, 10, 2, 16}};

TEST(IntegerLinear, IsTheProductWithRoundedInputs) {
  for (const auto& [out, in, group_size, levels] : kShapes) {
    const Quantized q = make(out, in, group_size, levels);
    const Linear plain = make_quantized_linear(q.codes, q.zeros, q.scales, q.bias, group_size, at::kFloat);
    const Linear integer = with_int8_activations(plain);
    ASSERT_TRUE(std::holds_alternative<IntegerLinear>(integer)) << in;
    EXPECT_TRUE(is_quantized(integer));
    EXPECT_TRUE(at::equal(dense_weight(integer), dense_weight(plain)));
    const at::Tensor dense = dense_weight(plain).to(at::kDouble);
    for (const int64_t rows : {1, 3, 40}) {
      const at::Tensor x = at::randn({2, rows, in});
      const at::Tensor rounded =
          quant::dequantize(quant::quantize_rows(x.view({-1, in}), group_size)).view({2, rows, in}).to(at::kDouble);
      const at::Tensor exact = at::linear(rounded, dense, q.bias.to(at::kDouble));
      const at::Tensor y = forward(integer, x);
      ASSERT_EQ(y.sizes(), exact.sizes());
      const double terms = at::linear(rounded.abs(), dense.abs()).max().item<double>() + 3.0;
      EXPECT_LT((y.to(at::kDouble) - exact).abs().max().item<double>(), 5e-7 * terms) << in << " " << rows;
      EXPECT_GT((forward(plain, x).to(at::kDouble) - exact).abs().max().item<double>(), 1e-4 * terms)
          << in << " " << rows;  // it is another function
    }
  }
}

TEST(IntegerLinear, OtherTypesAreRoundedAtTheEndOnly) {
  const Quantized q = make(48, 256, 128, 16);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    const Linear integer = with_int8_activations(make_quantized_linear(q.codes, q.zeros, q.scales, {}, 128, type));
    const at::Tensor x = at::randn({3, 256}).to(type);
    const at::Tensor y = forward(integer, x);
    EXPECT_EQ(y.scalar_type(), type);
    EXPECT_TRUE(at::equal(y, forward(integer, x.to(at::kFloat)).to(type)));
  }
}

TEST(IntegerLinear, GoesBackWithoutLoss) {
  for (const auto& [out, in, group_size, levels] : kShapes) {
    const Quantized q = make(out, in, group_size, levels);
    const Linear plain = make_quantized_linear(q.codes, q.zeros, q.scales, q.bias, group_size, at::kFloat);
    const Linear back = with_float_activations(with_int8_activations(plain));
    EXPECT_EQ(back.index(), plain.index());
    const at::Tensor x = at::randn({2, in});
    EXPECT_TRUE(at::equal(forward(back, x), forward(plain, x)));
    EXPECT_EQ(memory_bytes(back), memory_bytes(plain));
  }
  const Quantized q = make(8, 32, 32, 16);
  const Linear dense = FloatLinear{at::randn({8, 32}), {}};
  EXPECT_TRUE(std::holds_alternative<FloatLinear>(with_int8_activations(dense)));
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(
      with_float_activations(make_packed_linear(q.codes, q.zeros, q.scales, {}, 32, at::kFloat))));
}

TEST(IntegerLinear, CountsItsBytesAndStaysOnTheProcessor) {
  const Quantized q = make(64, 256, 128, 16);
  const Linear integer =
      with_int8_activations(make_packed_linear(q.codes, q.zeros, q.scales.to(at::kHalf).to(at::kFloat), q.bias, 128, at::kFloat));
  EXPECT_EQ(memory_bytes(integer), 64U * 128 + 64 * 2 * (2 + 1) + 64 * 4);
  EXPECT_TRUE(std::holds_alternative<IntegerLinear>(to_device(integer, at::kCPU)));
  // No second device is needed to see that the tensors would move: meta holds shapes alone.
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(to_device(integer, at::kMeta)));
}

TEST(IntegerLinear, RefusesOtherWidths) {
  const Quantized q = make(8, 32, 32, 16);
  const Linear integer = with_int8_activations(make_packed_linear(q.codes, q.zeros, q.scales, {}, 32, at::kFloat));
  EXPECT_THAT(salient::test::message_of(
                  [&] {
                    forward(integer, at::ones({2, 31}));
                  },
                  ErrorKind::kInternal),
              ::testing::HasSubstr("31 features, expected 32"));
}

// A weight in half precision with inputs in float32: a head that is kept as it is stored.
TEST(HalfWeights, GiveTheProductOfWhatIsStored) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{40, 96}, {kDequantizedElements / 1024 + 30, 1024}}) {
      at::manual_seed(out);
      const FloatLinear linear{at::randn({out, in}).to(type), at::randn({out}).to(type)};
      const at::Tensor dense = linear.weight.to(at::kDouble);
      for (const int64_t rows : {1, 5, 12, 13, 40}) {
        const at::Tensor x = at::randn({1, rows, in});
        const at::Tensor exact = at::linear(x.to(at::kDouble), dense, linear.bias.to(at::kDouble));
        const at::Tensor y = forward(linear, x);
        EXPECT_EQ(y.scalar_type(), at::kFloat);
        const double terms = at::linear(x.to(at::kDouble).abs(), dense.abs()).max().item<double>();
        EXPECT_LT((y.to(at::kDouble) - exact).abs().max().item<double>(), 5e-7 * terms) << type << out << "x" << in << rows;
      }
    }
  }
}

}  // namespace
}  // namespace salient::models
