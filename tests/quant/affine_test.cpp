#include "quant/affine.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Half.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

// The definition, in float64, one weight at a time.
struct Reference {
  double scale;
  double zero;
};

Reference reference_parameters(const float* w, int64_t n, const AffineOptions& options) {
  double low = 0;
  double high = 0;
  for (int64_t i = 0; i < n; ++i) {
    low = std::min<double>(low, w[i]);
    high = std::max<double>(high, w[i]);
  }
  const double levels = (1 << options.bits) - 1;
  const double half = 1 << (options.bits - 1);
  const double raw = options.zero_point ? (high - low) / levels : std::max(-low, high) / (half - 1);
  const double scale = static_cast<float>(c10::Half(static_cast<float>(raw)));
  return {scale, options.zero_point ? std::clamp(std::nearbyint(-low / scale), 0.0, levels) : half};
}

class AffineProperty : public testing::TestWithParam<AffineOptions> {};

TEST_P(AffineProperty, ErrorIsWithinHalfAStepOfTheNearestLevel) {
  const AffineOptions options = GetParam();
  const at::Tensor weight = test::random_matrix(24, 256, 5, /*outliers=*/true);
  const QuantizedWeight quantized = quantize_affine(weight, options);
  const at::Tensor dense = dequantize(quantized);
  const int64_t groups = 256 / options.group_size;
  const double levels = (1 << options.bits) - 1;
  for (int64_t row = 0; row < 24; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* w = weight.const_data_ptr<float>() + row * 256 + g * options.group_size;
      const Reference reference = reference_parameters(w, options.group_size, options);
      EXPECT_FLOAT_EQ(quantized.scales[row][g].item<float>(), static_cast<float>(reference.scale));
      EXPECT_EQ(quantized.zeros[row][g].item<int64_t>(), static_cast<int64_t>(reference.zero));
      for (int64_t i = 0; i < options.group_size; ++i) {
        const double best =
            (std::clamp(std::nearbyint(w[i] / reference.scale) + reference.zero, 0.0, levels) - reference.zero) * reference.scale;
        const double found = dense[row][g * options.group_size + i].item<double>();
        // A tie may fall to the other side in float32: then both levels are equally far.
        EXPECT_LE(std::abs(found - w[i]), std::abs(best - w[i]) + 1e-5 * reference.scale) << row << " " << g << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, AffineProperty,
                         testing::Values(AffineOptions{4, 128, true}, AffineOptions{4, 32, true}, AffineOptions{4, 256, true},
                                         AffineOptions{4, 128, false}, AffineOptions{3, 64, true}, AffineOptions{2, 32, true},
                                         AffineOptions{8, 128, true}, AffineOptions{8, 64, false}, AffineOptions{5, 16, true}));

TEST(Affine, EveryStoredScaleIsExactInHalf) {
  const QuantizedWeight quantized = quantize_affine(test::random_matrix(16, 128, 3), {4, 32, true});
  EXPECT_TRUE(quantized.scales.to(at::kHalf).to(at::kFloat).equal(quantized.scales));
}

TEST(Affine, ZeroStaysZeroInOneSidedGroups) {
  at::Tensor weight = at::arange(1, 33, at::kFloat).view({1, 32}).contiguous();  // all positive
  weight[0][7] = 0.0;
  const at::Tensor dense = dequantize(quantize_affine(weight, {4, 32, true}));
  EXPECT_EQ(dense[0][7].item<float>(), 0.0f);
  EXPECT_NEAR(dense[0][31].item<float>(), 32.0f, 0.6f);
}

TEST(Affine, ConstantGroupKeepsItsValue) {
  const at::Tensor weight = at::full({1, 32}, 0.37, at::kFloat);
  EXPECT_NEAR(dequantize(quantize_affine(weight, {4, 32, true}))[0][3].item<float>(), 0.37f, 2e-4f);
}

TEST(Affine, AllZeroGroupIsExact) {
  for (const bool zero_point : {true, false}) {
    const at::Tensor weight = at::zeros({2, 64});
    EXPECT_TRUE(dequantize(quantize_affine(weight, {4, 32, zero_point})).equal(weight));
  }
}

TEST(Affine, TinyAndHugeWeightsGiveFiniteScales) {
  const at::Tensor tiny = at::full({1, 32}, 1e-9, at::kFloat);
  const at::Tensor huge = at::full({1, 32}, 1e7, at::kFloat);
  EXPECT_TRUE(dequantize(quantize_affine(tiny, {4, 32, true})).isfinite().all().item<bool>());
  EXPECT_TRUE(dequantize(quantize_affine(huge, {4, 32, true})).isfinite().all().item<bool>());
  EXPECT_GT(quantize_affine(tiny, {4, 32, true}).scales[0][0].item<float>(), 0.0f);
}

TEST(Affine, QuantizationErrorEqualsQuantizeThenDequantize) {
  const at::Tensor weight = test::random_matrix(12, 128, 9);
  const at::Tensor s = test::random_matrix(1, 128, 10).abs().flatten().add(0.1).contiguous();
  const AffineOptions options{4, 32, true};
  const at::Tensor expected = dequantize(quantize_affine((weight * s).contiguous(), options)) / s - weight;
  EXPECT_LT((quantization_error(weight, s, options) - expected).abs().max().item<float>(), 1e-6f);
}

TEST(Affine, QuantizationErrorMayBeWrittenByGroup) {
  const at::Tensor weight = test::random_matrix(5, 96, 11);
  const AffineOptions options{3, 32, true};
  const ClipRange clip{at::full({5, 3}, 0.7, at::kFloat), at::full({5, 3}, 0.9, at::kFloat)};
  at::Tensor by_group = at::zeros({3, 5, 32});
  write_quantization_error(weight, {}, options, &clip, by_group);
  EXPECT_TRUE(by_group.transpose(0, 1).reshape({5, 96}).equal(dequantize(quantize_affine(weight, options, &clip)) - weight));
}

TEST(Affine, ClipShrinksTheRange) {
  const at::Tensor weight = test::random_matrix(4, 64, 2);
  const ClipRange half{at::full({4, 2}, 0.5, at::kFloat), at::full({4, 2}, 0.5, at::kFloat)};
  const QuantizedWeight full = quantize_affine(weight, {4, 32, true});
  const QuantizedWeight clipped = quantize_affine(weight, {4, 32, true}, &half);
  EXPECT_LT((clipped.scales / full.scales - 0.5).abs().max().item<float>(), 2e-3f);
}

TEST(Affine, GroupSizeThatDoesNotDivideNamesThoseThatDo) {
  try {
    resolve_group_size(128, 96);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), testing::HasSubstr("16, 32 and -1"));
  }
  EXPECT_EQ(resolve_group_size(-1, 96), 96);
}

}  // namespace
}  // namespace salient::quant
