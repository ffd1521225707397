#include "quant/int8_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace salient::quant {
namespace {

// compressed-tensors 0.20.0: compute_dynamic_scales_and_zp, quantize and fake_quantize with QuantizationArgs(num_bits=8,
// symmetric=True, strategy="token", dynamic=True). The first row has ties and both ends of the range, the second is all zeros.
TEST(Int8Rows, EqualCompressedTensors) {
  const at::Tensor x = at::tensor({0.5,  -1.5,  2.25, 127.5, -127.5, 64.5, -63.5, 0.0,  //
                                   0.0,  0.0,   0.0,  0.0,   0.0,    0.0,  0.0,   0.0,  //
                                   1e-3, -2e-3, 3e-3, 7e-4,  0.0,    1.0,  -0.2,  0.00392},
                                  at::kFloat)
                           .view({1, 3, 8});
  const Int8Rows rows = to_int8_rows(x, kCompressedTensorsHalfRange);
  EXPECT_TRUE(at::equal(rows.scales, at::tensor({1.0, 1.1920928955078125e-07, 0.007843137718737125}, at::kFloat).view({1, 3})))
      << rows.scales;
  const at::Tensor codes =
      at::tensor({0, -2, 2, 127, -128, 64, -64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 127, -25, 0}, at::kChar).view({1, 3, 8});
  EXPECT_TRUE(at::equal(rows.codes, codes)) << rows.codes;
  const at::Tensor last = round_to_int8_rows(x)[0][2];
  EXPECT_EQ(last[5].item<float>(), 0.9960784912109375f);
  EXPECT_EQ(last[6].item<float>(), -0.19607844948768616f);
}

TEST(Int8Rows, DifferByAtMostHalfAStep) {
  for (const auto& [width, half_range] :
       {std::pair<int64_t, float>{1, 127}, {7, 127.5}, {16, 127}, {64, 127.5}, {100, 127}, {128, 127.5}}) {
    const at::Tensor x = at::randn({3, 5, width}) * at::logspace(-12, 12, 15).view({3, 5, 1});
    const Int8Rows rows = to_int8_rows(x, half_range);
    const at::Tensor error = (from_int8_rows(rows, at::kFloat).to(at::kDouble) - x.to(at::kDouble)).abs();
    // Half a step, and float32's rounding of the scale, of the quotient and of code * scale, each of up to 127.5 steps.
    const at::Tensor bound = rows.scales.to(at::kDouble).unsqueeze(-1) * (0.5 + 4 * 127.5 / (1 << 24));
    EXPECT_TRUE(error.le(bound).all().item<bool>()) << width;
    // The step is what the largest magnitude says, not a larger one with an easier bound.
    EXPECT_TRUE(at::allclose(rows.scales, x.abs().amax(-1) / half_range, 1e-6, 0)) << width;
  }
}

// The way for float32 in memory and the one of operators, for everything else.
TEST(Int8Rows, BothWaysAgree) {
  const at::Tensor x = at::randn({4, 9, 33}).transpose(0, 1);
  const Int8Rows fast = to_int8_rows(x, kStableHalfRange);
  const Int8Rows slow = to_int8_rows(x.to(at::kDouble), kStableHalfRange);
  EXPECT_TRUE(at::equal(fast.codes, slow.codes));
  EXPECT_TRUE(at::equal(fast.scales, slow.scales));
  const at::Tensor stored = at::full({1}, 0.01, at::kFloat);
  EXPECT_TRUE(
      at::equal(to_int8_rows(x, kStableHalfRange, stored).codes, to_int8_rows(x.to(at::kDouble), kStableHalfRange, stored).codes));
}

// However its last bits fall, the largest number of a row has the same code.
TEST(Int8Rows, TheLargestIsACode) {
  for (int step = 0; step < 1000; ++step) {
    const at::Tensor x = at::tensor({-1.0f - static_cast<float>(step) * 1.1920928955078125e-07f, 0.5f}, at::kFloat);
    ASSERT_EQ(to_int8_rows(x, kStableHalfRange).codes[0].item<int64_t>(), -127);
  }
}

TEST(Int8Rows, BfloatIsRoundedFromFloat) {
  const at::Tensor x = at::randn({6, 40}).to(at::kBFloat16);
  const at::Tensor rounded = round_to_int8_rows(x);
  EXPECT_EQ(rounded.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(rounded, round_to_int8_rows(x.to(at::kFloat)).to(at::kBFloat16)));
}

TEST(Int8Rows, AStoredScaleCutsOff) {
  const at::Tensor x = at::tensor({-9.0, -1.28, 0.004, 0.006, 1.27, 9.0}, at::kFloat).view({1, 1, 6});
  const Int8Rows rows = to_int8_rows(x, kStableHalfRange, at::full({1, 1}, 0.01, at::kFloat));
  EXPECT_TRUE(at::equal(rows.codes, at::tensor({-128, -128, 0, 1, 127, 127}, at::kChar).view({1, 1, 6}))) << rows.codes;
  EXPECT_EQ(rows.scales.sizes(), (at::IntArrayRef{1, 1}));
  // One for each head: the second has steps twice as wide.
  const at::Tensor heads = at::full({1, 2, 3, 4}, 0.5, at::kFloat);
  const at::Tensor codes = to_int8_rows(heads, kStableHalfRange, at::tensor({0.01, 0.02}, at::kFloat).view({2, 1})).codes;
  EXPECT_EQ(codes[0][0][0][0].item<int64_t>(), 50);
  EXPECT_EQ(codes[0][1][2][3].item<int64_t>(), 25);
}

TEST(Int8Rows, WhatIsNotFiniteStaysSo) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    at::Tensor x = at::ones({2, 20});
    x[1][7] = bad;
    for (const at::Tensor& given : {x, x.to(at::kDouble)}) {
      const at::Tensor rounded = round_to_int8_rows(given);
      EXPECT_TRUE(rounded[0].isfinite().all().item<bool>());
      EXPECT_FALSE(rounded[1].isfinite().any().item<bool>()) << rounded[1];
    }
  }
}

}  // namespace
}  // namespace salient::quant
