#include "quant/ggml_rounding.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "quant/ggml_codes.h"

namespace salient::quant {
namespace {

constexpr GgmlType kBlockTypes[] = {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1,
                                    GgmlType::kQ8_0, GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K};

// Inputs whose channels differ in size and are correlated; some are never active.
at::Tensor inputs(int64_t channels) {
  at::manual_seed(7);
  const at::Tensor sizes = (at::randn({channels}) * 1.5).exp();
  at::Tensor x = at::randn({4 * channels, channels}).matmul(at::eye(channels) + 0.1 * at::randn({channels, channels})) * sizes;
  x.slice(1, 32, 70).zero_();
  return x;
}

at::Tensor error_by_row(const at::Tensor& blocks, GgmlType type, const at::Tensor& weight, const at::Tensor& gram) {
  const at::Tensor error = (dequantize_ggml(blocks, type) - weight).to(at::kDouble);
  return (error.matmul(gram.to(at::kDouble)) * error).sum(1);
}

TEST(GgmlRounding, ImportanceIsTheDiagonalAndNeverZero) {
  const at::Tensor x = inputs(256);
  const at::Tensor gram = x.t().matmul(x);
  const at::Tensor importance = ggml_importance(gram);
  ASSERT_EQ(importance.sizes(), at::IntArrayRef({256}));
  EXPECT_GT(importance.min().item<float>(), 0.0f);
  const at::Tensor mean_square = x.to(at::kDouble).square().mean(0);
  const at::Tensor large = mean_square > 1e-3 * mean_square.mean();
  const at::Tensor ratio = (importance.to(at::kDouble) / mean_square).masked_select(large);
  EXPECT_LT(((ratio - ratio[0]).abs().max() / ratio[0]).item<double>(), 1e-4);
  EXPECT_FALSE(ggml_importance(at::zeros({256, 256})).defined());
  EXPECT_FALSE(ggml_importance(at::full({256, 256}, std::numeric_limits<float>::infinity())).defined());
}

TEST(GgmlRounding, BlocksOfEachRowAreTheBetterOnes) {
  const at::Tensor x = inputs(512);
  const at::Tensor gram = x.t().matmul(x);
  const at::Tensor weight = at::randn({40, 512});
  for (const GgmlType type : kBlockTypes) {
    const at::Tensor plain = quantize_ggml(weight, type);
    const at::Tensor before = error_by_row(plain, type, weight, gram);
    const at::Tensor after = error_by_row(blocks_by_importance(weight, type, gram), type, weight, gram);
    EXPECT_TRUE((after <= before * (1 + 1e-5)).all().item<bool>()) << ggml_type_info(type).name;
    if (type != GgmlType::kQ8_0) {
      EXPECT_LT(after.sum().item<double>(), 0.97 * before.sum().item<double>()) << ggml_type_info(type).name;
    }
    EXPECT_TRUE(at::equal(blocks_by_importance(weight, type, {}), plain)) << ggml_type_info(type).name;
  }
}

TEST(GgmlRounding, StandInHasTheTypesGroups) {
  for (const GgmlType type : kBlockTypes) {
    const at::Tensor weight = at::randn({6, 512});
    const WeightToRound start = weight_of_blocks(weight, quantize_ggml(weight, type), type);
    EXPECT_EQ(start.options.bits, ggml_codes(type).bits);
    EXPECT_EQ(start.start.scales.size(1), 512 / start.options.group_size);
    EXPECT_LT((dequantize(start.start) - dequantize_ggml(quantize_ggml(weight, type), type)).abs().max().item<float>(), 1e-3f);
    // Nearly the type's own error: what the search compares with it is worth something.
    const double own = (dequantize(start.start) - weight).square().sum().item<double>();
    const double stand_in = quantization_error(weight, {}, start.options).square().sum().item<double>();
    EXPECT_GT(own, 0.5 * stand_in) << ggml_type_info(type).name;
    EXPECT_LT(own, 2.0 * stand_in) << ggml_type_info(type).name;
  }
}

TEST(GgmlScaleChoice, TakesTheCandidateThatItsBlocksLikeAndNeverAWorseOne) {
  const at::Tensor x = inputs(256);
  InputStatistics input = make_input_statistics(256, at::kCPU);
  accumulate(input, x);
  finish(input);
  const at::Tensor weight = at::randn({1100, 256});  // more rows than are measured
  const auto candidate = [&](double ratio, const char* kind) -> ScaleSearchResult {
    const at::Tensor s = (mean_abs(input) + 1e-3).pow(ratio);
    return {s / s.mean(), 0, 0, kind, ratio};
  };
  const auto choose = [&](std::vector<ScaleSearchResult> candidates, bool none_worse) {
    GgmlScaleChoice choice(input, std::move(candidates));
    choice.add_error(weight, GgmlType::kQ4_K, none_worse);
    return choice.finish();
  };
  const ScaleSearchResult good = choose({candidate(0, "identity"), candidate(-1, "bad"), candidate(0.4, "good")}, true);
  EXPECT_EQ(good.kind, "good");
  EXPECT_LT(good.best_error, good.rtn_error);
  const ScaleSearchResult none = choose({candidate(0, "identity"), candidate(-1, "bad")}, true);
  EXPECT_EQ(none.kind, "identity");
  EXPECT_EQ(none.best_error, none.rtn_error);
}

}  // namespace
}  // namespace salient::quant
