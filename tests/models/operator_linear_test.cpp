// 4-bit products by a device's operator: on a CUDA device, skipped where there is none, and on one that stands in for it.
#include "models/decoder/operator_linear.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "models/decoder/linear.h"
#include "support/stand_in_int4.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

struct Codes {
  at::Tensor codes, zeros, scales, bias;
};

Codes make_codes(int64_t out, int64_t in, int64_t group_size) {
  return {at::randint(0, 16, {out, in}, at::kByte), at::randint(0, 16, {out, in / group_size}, at::kByte),
          at::rand({out, in / group_size}) * 0.1 + 0.001, at::randn({out})};
}

// float64, as the header defines it, with scales and zeros as bfloat16 holds them.
at::Tensor weight_of(const Codes& given, int64_t group_size) {
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kDouble); };
  const at::Tensor scales = rounded(given.scales);
  const at::Tensor zeros = rounded((8 - given.zeros.to(at::kDouble)) * scales);
  return (given.codes.to(at::kDouble) - 8) * scales.repeat_interleave(group_size, 1) + zeros.repeat_interleave(group_size, 1);
}

// What the codes stand for, without any rounding, and how far the header allows the operator's weight to be from it.
struct Exact {
  at::Tensor weight, bound;
};
Exact exact_weight(const Codes& given, int64_t group_size) {
  const auto wide = [&](const at::Tensor& x) { return x.to(at::kDouble).repeat_interleave(group_size, 1); };
  const at::Tensor weight = (given.codes.to(at::kDouble) - wide(given.zeros)) * wide(given.scales);
  return {weight, weight.abs() / 128 + wide(given.scales) / 32};
}

class OperatorLinearTest : public ::testing::TestWithParam<c10::DeviceType> {
 protected:
  void SetUp() override {
    if (device().is_cuda() && !at::hasCUDA()) GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
    at::manual_seed(7);
  }
  static at::Device device() { return at::Device(GetParam(), 0); }
};

TEST_P(OperatorLinearTest, ProductsAreThoseOfTheDefinition) {
  ASSERT_TRUE(has_int4_operator(device()));
  for (const auto& [out, in, group_size] :
       {std::tuple<int64_t, int64_t, int64_t>{64, 256, 32}, {128, 512, 64}, {64, 384, 128}, {192, 256, 256}, {64, 96, 32}}) {
    const Codes given = make_codes(out, in, group_size);
    const auto there = [&](const at::Tensor& tensor) { return tensor.to(device()); };
    const OperatorLinear linear =
        make_operator_linear(there(given.codes), there(given.zeros), there(given.scales), there(given.bias), group_size);
    const at::Tensor weight = weight_of(given, group_size);
    const double largest = weight.abs().max().item<double>();
    const at::Tensor found = dense_weight(linear).cpu().to(at::kDouble);
    EXPECT_LE((found - weight).abs().max().item<double>(), largest / 256) << in;
    const Exact exact = exact_weight(given, group_size);
    EXPECT_TRUE((found - exact.weight).abs().le(exact.bound).all().item<bool>()) << in;
    EXPECT_EQ(operator_product(linear, there(at::zeros({0, in}, at::kBFloat16))).sizes(), at::IntArrayRef({0, out}));
    for (const int64_t rows : {1, 5, 40}) {
      const at::Tensor x = at::randn({rows, in}).to(at::kBFloat16);
      const at::Tensor expected = at::linear(x.to(at::kDouble), weight, given.bias.to(at::kBFloat16).to(at::kDouble));
      for (const int64_t at_a_time : {kOperatorElements / in, int64_t{3}}) {  // all rows, and three of them
        const at::Tensor y = operator_product(linear, there(x), at_a_time * std::max(in, out)).cpu();
        EXPECT_EQ(y.scalar_type(), at::kBFloat16);
        ASSERT_EQ(y.sizes(), expected.sizes());
        EXPECT_LT((y.to(at::kDouble) - expected).abs().max().item<double>(), expected.abs().max().item<double>() / 64)
            << out << " x " << in << ", " << rows << " rows, " << at_a_time << " at a time";
      }
    }
  }
}

TEST_P(OperatorLinearTest, IsChosenInBfloat16WhereTheShapeFits) {
  const auto placed = [&](int64_t out, int64_t in, int64_t group_size, at::ScalarType dtype) {
    const Codes given = make_codes(out, in, group_size);
    return place(make_quantized_linear(given.codes, given.zeros, given.scales, given.bias, group_size, dtype), device(), dtype);
  };
  const Linear chosen = placed(64, 256, 128, at::kBFloat16);
  ASSERT_TRUE(std::holds_alternative<OperatorLinear>(chosen));
  EXPECT_TRUE(is_quantized(chosen));
  EXPECT_EQ(memory_bytes(chosen), 64u * 256 / 2 + 64 * 2 * 2 * 2 + 64 * 2);
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(placed(64, 256, 128, at::kFloat)));
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(placed(64, 192, 96, at::kBFloat16)));
  EXPECT_TRUE(std::holds_alternative<PackedLinear>(placed(12, 256, 128, at::kBFloat16)));
}

TEST_P(OperatorLinearTest, StaysWhereItIs) {
  const Codes given = make_codes(64, 256, 128);
  const Linear linear =
      place(make_quantized_linear(given.codes, given.zeros, given.scales, {}, 128, at::kBFloat16), device(), at::kBFloat16);
  ASSERT_TRUE(std::holds_alternative<OperatorLinear>(linear));
  for (const at::Device same : {device(), at::Device(GetParam())})  // the second names no device of the kind
    EXPECT_TRUE(std::get<OperatorLinear>(to_device(linear, same)).packed.is_same(std::get<OperatorLinear>(linear).packed));
  test::error_of([&] { to_device(linear, at::kCPU); }, ErrorKind::kInternal);
  test::error_of([&] { to_device(linear, at::Device(GetParam(), 1)); }, ErrorKind::kInternal);
}

TEST_P(OperatorLinearTest, InputsInEightBitsAreRoundedFirst) {
  const Codes given = make_codes(64, 256, 64);
  Linear exact = make_quantized_linear(given.codes, given.zeros, given.scales, {}, 64, at::kBFloat16);
  Linear rounded = place(exact, device(), at::kBFloat16);
  ASSERT_TRUE(set_activation_bits(rounded, 8));
  ASSERT_TRUE(set_activation_bits(exact, 8));
  const at::Tensor x = at::randn({3, 256}).to(at::kBFloat16);
  const at::Tensor expected = forward(exact, x).to(at::kFloat);
  const at::Tensor found = forward(rounded, x.to(device())).cpu().to(at::kFloat);
  EXPECT_LT((found - expected).abs().max().item<float>(), expected.abs().max().item<float>() / 32);
}

INSTANTIATE_TEST_SUITE_P(Devices, OperatorLinearTest, ::testing::Values(test::kStandIn, c10::DeviceType::CUDA),
                         [](const auto& param_info) {
                           return std::string(param_info.param == c10::DeviceType::CUDA ? "cuda" : "stand_in");
                         });

TEST(Int4Operator, TakesWholeTilesAndFourSizesOfGroups) {
  EXPECT_TRUE(fits_operator(4096, 4096, 128));
  EXPECT_TRUE(fits_operator(96, 8, 32));
  EXPECT_FALSE(fits_operator(4096, 4096, 4096));
  EXPECT_FALSE(fits_operator(4096, 4100, 128));
  EXPECT_FALSE(fits_operator(160, 64, 64));
}

// One that lays codes out in another way than the program takes for granted is not used.
TEST(Int4Operator, IsRefusedWhereItComputesSomethingElse) {
  const at::Device device(test::kStandIn, 0);
  EXPECT_TRUE(test_int4_operator(device));
  test::stand_in::swaps_codes = true;
  EXPECT_FALSE(test_int4_operator(device));
  test::stand_in::swaps_codes = false;
  EXPECT_FALSE(test_int4_operator(at::kCPU));
}

}  // namespace
}  // namespace salient::models
