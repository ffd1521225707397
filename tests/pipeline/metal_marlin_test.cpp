#include "pipeline/metal_marlin.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/error.h"

namespace salient::metal_marlin {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kIn = 512;
constexpr int64_t kOut = 96;

at::Tensor normal(std::vector<int64_t> shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat));
}

struct Layer {
  at::Tensor weights;      // [in, out]
  at::Tensor activations;  // [4, 64, in]
};

// Twelve channels (2.3 %) are 6 to 28 times as active as the others, as the outlier channels of language models are.
Layer outlier_layer(uint64_t seed) {
  Layer layer{normal({kIn, kOut}, seed) * 0.1, normal({4, 64, kIn}, seed + 1)};
  for (int64_t i = 0; i < 12; ++i) layer.activations.select(2, (i * 41 + 7) % kIn).mul_(28.0 - 2.0 * static_cast<double>(i));
  return layer;
}

AwqMeta meta_of(int64_t group_size = 128) { return {kIn, kOut, group_size, "awq_int4"}; }

at::Tensor dequantize(const AwqResult& result, int64_t group_size = 128) {
  return awq_dequantize(result.Q, result.scales, result.zeros, result.q_scale, meta_of(group_size), at::kFloat);
}

// Mean squared norm of the output's change, from the activations themselves.
double output_error(const Layer& layer, const at::Tensor& dequantized) {
  const at::Tensor x = layer.activations.reshape({-1, kIn}).to(at::kDouble);
  return at::mm(x, (dequantized - layer.weights).to(at::kDouble)).square().sum().item<double>() / static_cast<double>(x.size(0));
}

std::string message_of(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(ActivationStats, AreThePublishedFormulas) {
  const at::Tensor x = at::tensor({3.0f, -1.0f, -4.0f, 1.0f, 0.0f, 2.0f}).reshape({1, 3, 2});
  EXPECT_TRUE(at::allclose(compute_activation_stats(x, ActivationMethod::kMean), at::tensor({7.0f / 3, 4.0f / 3})));
  EXPECT_TRUE(at::equal(compute_activation_stats(x, ActivationMethod::kMax), at::tensor({4.0f, 2.0f})));
  EXPECT_TRUE(at::allclose(compute_activation_stats(x), at::tensor({std::sqrt(25.0f / 3), std::sqrt(2.0f)})));
  EXPECT_EQ(parse_activation_method("max"), ActivationMethod::kMax);
  EXPECT_THAT(message_of([] { parse_activation_method("median"); }, ErrorKind::kInvalidArgument), HasSubstr("mean, max or rms"));
  x[0][1][1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message_of([&] { compute_activation_stats(x); }, ErrorKind::kCorruption), HasSubstr("the first is 1"));
  EXPECT_THAT(message_of([] { compute_activation_stats(at::ones({4})); }, ErrorKind::kInvalidArgument), HasSubstr("[4]"));
}

TEST(SalientWeights, AreTheLargestProducts) {
  const at::Tensor weights = at::tensor({1.0f, -8.0f, 3.0f, 2.0f, 0.5f, 0.0f}).reshape({3, 2});
  const SalientWeights found = find_salient_weights(weights, at::tensor({1.0f, 4.0f, 2.0f}), 0.5);
  EXPECT_TRUE(at::allclose(found.per_channel_importance, at::tensor({0.25f, 1.0f, 0.5f})));
  // Products 0.25 2 | 3 2 | 0.25 0: three are wanted.
  EXPECT_TRUE(at::equal(found.salient_mask, at::tensor({0, 1, 1, 1, 0, 0}).reshape({3, 2}).to(at::kBool)));
  EXPECT_EQ(find_salient_weights(weights, at::zeros({3}), 0.5).salient_mask.sum().item<int64_t>(), 0);
  const Layer layer = outlier_layer(1);
  for (const double ratio : {0.0, 0.005, 0.01, 0.02, 1.0}) {
    const at::Tensor mask = find_salient_weights(layer.weights, compute_activation_stats(layer.activations), ratio).salient_mask;
    EXPECT_EQ(mask.sum().item<int64_t>(), static_cast<int64_t>(kIn * kOut * ratio)) << ratio;
  }
  EXPECT_THAT(message_of([&] { find_salient_weights(weights, at::ones({2})); }, ErrorKind::kInvalidArgument), HasSubstr("[3]"));
  EXPECT_THAT(message_of([&] { find_salient_weights(weights, at::ones({3}), 1.5); }, ErrorKind::kInvalidArgument),
              HasSubstr("0 to 1"));
}

TEST(AwqQuantize, PacksEightInputChannelsAWord) {
  // Codes -7 .. 7 with a scale of exactly 1: the largest weight of each group is 7.
  at::Tensor weights = at::zeros({16, 8});
  for (int64_t k = 0; k < 16; ++k) weights[k] = static_cast<double>(k < 15 ? k - 7 : 0);
  const AwqResult result = awq_quantize(weights, at::ones({2, 16}), {.group_size = 16, .salient_ratio = 0});
  ASSERT_EQ(result.Q.scalar_type(), at::kUInt32);
  ASSERT_EQ(result.Q.sizes(), (std::vector<int64_t>{2, 8}));
  const auto* words = static_cast<const uint32_t*>(result.Q.const_data_ptr());
  EXPECT_EQ(words[0], 0x76543210u);
  EXPECT_EQ(words[8], 0x7edcba98u);
  EXPECT_TRUE(at::equal(result.scales, at::ones({1, 8}, at::kHalf)));
  EXPECT_TRUE(at::equal(result.zeros, at::zeros({1, 8}, at::kHalf)));
  EXPECT_TRUE(at::equal(result.q_scale, at::ones({16}, at::kHalf)));
  EXPECT_EQ(result.quantization_error, 0);
  EXPECT_TRUE(at::equal(awq_dequantize(result.Q, result.scales, result.zeros, result.q_scale, {16, 8, 16, "awq_int4"}, at::kFloat),
                        weights));
}

TEST(AwqQuantize, ReportsTheErrorsThatItsResultHas) {
  const Layer layer = outlier_layer(2);
  for (const bool zero_point : {false, true}) {
    const AwqResult result = awq_quantize(layer.weights, layer.activations, {.salient_ratio = 0.02, .zero_point = zero_point});
    const at::Tensor restored = dequantize(result);
    EXPECT_NEAR(result.output_error / output_error(layer, restored), 1, 1e-4);
    EXPECT_NEAR(result.quantization_error / (restored - layer.weights).square().sum().item<double>(), 1, 1e-4);
    // Within half a step of each weight, scales being in the space of weight * q_scale.
    const at::Tensor step = result.scales.to(at::kFloat).repeat_interleave(128, 0) / result.q_scale.to(at::kFloat).unsqueeze(1);
    EXPECT_LT(((restored - layer.weights).abs() / step).max().item<float>(), zero_point ? 1.02 : 0.51);
    EXPECT_EQ(result.zeros.ne(0).any().item<bool>(), zero_point);
  }
}

// The guide's table: 0.005 less accurate and smaller, 0.01 the balance, 0.02 more accurate and slightly larger.
TEST(TableOfSettings, ALargerSalientRatioProtectsMoreAndLosesLess) {
  for (const uint64_t seed : {11, 12}) {
    const Layer layer = outlier_layer(seed);
    double last = std::numeric_limits<double>::infinity();
    int64_t last_channels = -1;
    for (const double ratio : {0.0, 0.005, 0.01, 0.02}) {
      const AwqResult result = awq_quantize(layer.weights, layer.activations, {.salient_ratio = ratio});
      const double error = output_error(layer, dequantize(result));
      EXPECT_LT(error, last * 0.97) << ratio;
      EXPECT_GT(result.scaled_channels, last_channels) << ratio;
      EXPECT_NEAR(result.rtn_output_error,
                  output_error(layer, dequantize(awq_quantize(layer.weights, layer.activations, {.salient_ratio = 0}))),
                  1e-3 * error);
      last = error;
      last_channels = result.scaled_channels;
    }
    EXPECT_EQ(last_channels, 10);
  }
}

// By construction: also where the ratios are odd, the activations correlated and nothing stands out.
TEST(TableOfSettings, ErrorNeverRisesWithTheRatio) {
  Layer layer{normal({kIn, kOut}, 21), at::matmul(normal({3, 40, 24}, 22), normal({24, kIn}, 23))};
  double last = std::numeric_limits<double>::infinity();
  for (const double ratio : {0.0, 0.001, 0.003, 0.007, 0.02, 0.05, 0.2}) {
    const AwqResult result = awq_quantize(layer.weights, layer.activations, {.salient_ratio = ratio, .scale_grid = 6});
    EXPECT_LE(result.output_error, last * (1 + 1e-5)) << ratio;
    EXPECT_LE(result.output_error, result.rtn_output_error * (1 + 1e-5));
    last = result.output_error;
  }
}

// Five channels are silent but for two rows in 256, in which they are large: rms 5.4, mean 0.55. Five others are a little louder
// than the rest in every row: rms 2.5, mean 2.0. With spikes, five more have one still larger element, and nothing else: rms 5.1.
Layer bursty_layer(bool spikes) {
  Layer layer{normal({kIn, kOut}, 31) * 0.1, normal({4, 64, kIn}, 32)};
  const at::Tensor rows = layer.activations.view({256, kIn});
  for (int64_t i = 0; i < 5; ++i) {
    rows.select(1, 3 + 64 * i).mul_(0.1);
    for (const int64_t row : {17, 145}) rows[row][3 + 64 * i] = 60.0 + static_cast<double>(i);
    rows.select(1, 20 + 64 * i).mul_(2.5);
    if (spikes) rows[40 + i][9 + 64 * i] = 80.0;
  }
  return layer;
}

std::vector<int64_t> scaled_channels(const AwqResult& result) {
  const at::Tensor found = result.q_scale.ne(1).nonzero().flatten();
  return {found.const_data_ptr<int64_t>(), found.const_data_ptr<int64_t>() + found.numel()};
}

AwqResult quantize_by(const Layer& layer, ActivationMethod method) {
  return awq_quantize(layer.weights, layer.activations, {.salient_ratio = 0.01, .activation_method = method});
}

// The guide: mean may miss outliers, max captures them.
TEST(TableOfSettings, MeanMissesRareOutliersThatMaxAndRmsSee) {
  const Layer layer = bursty_layer(/*spikes=*/false);
  const AwqResult mean = quantize_by(layer, ActivationMethod::kMean);
  const AwqResult max = quantize_by(layer, ActivationMethod::kMax);
  const AwqResult rms = quantize_by(layer, ActivationMethod::kRms);
  EXPECT_THAT(scaled_channels(mean), testing::IsSubsetOf({20, 84, 148, 212, 276}));
  EXPECT_THAT(scaled_channels(max), testing::AllOf(testing::Not(testing::IsEmpty()), testing::IsSubsetOf({3, 67, 131, 195, 259})));
  EXPECT_THAT(scaled_channels(rms), testing::AllOf(testing::Not(testing::IsEmpty()), testing::IsSubsetOf({3, 67, 131, 195, 259})));
  EXPECT_LT(rms.output_error, mean.output_error * 0.98);
  EXPECT_LT(max.output_error, mean.output_error * 0.98);
}

// The guide: max may be noisy, rms is the balance.
TEST(TableOfSettings, MaxFollowsSingleSpikesThatRmsWeighs) {
  const Layer layer = bursty_layer(/*spikes=*/true);
  const AwqResult max = quantize_by(layer, ActivationMethod::kMax);
  const AwqResult rms = quantize_by(layer, ActivationMethod::kRms);
  EXPECT_THAT(scaled_channels(max), testing::IsSubsetOf({9, 73, 137, 201, 265}));
  EXPECT_THAT(scaled_channels(rms), testing::AllOf(testing::Not(testing::IsEmpty()), testing::IsSubsetOf({3, 67, 131, 195, 259})));
  EXPECT_LT(rms.output_error, max.output_error * 0.98);
}

TEST(TableOfSettings, SmallerGroupsLoseLessAndTakeMore) {
  const Layer layer = outlier_layer(41);
  double last_error = 0;
  size_t last_bytes = std::numeric_limits<size_t>::max();
  for (const int64_t group : {64, 128, 256}) {
    const AwqResult result = awq_quantize(layer.weights, layer.activations, {.group_size = group});
    const size_t bytes = result.Q.nbytes() + result.scales.nbytes() + result.zeros.nbytes() + result.q_scale.nbytes();
    EXPECT_GT(result.output_error, last_error) << group;
    EXPECT_LT(bytes, last_bytes) << group;
    last_error = result.output_error;
    last_bytes = bytes;
  }
}

TEST(AwqQuantize, StatisticsAloneDo) {
  const Layer layer = outlier_layer(51);
  const at::Tensor statistics = compute_activation_stats(layer.activations);
  const AwqResult result = awq_quantize(layer.weights, statistics, {.salient_ratio = 0.02});
  EXPECT_EQ(result.scaled_channels, 10);
  EXPECT_LT(output_error(layer, dequantize(result)),
            0.9 * output_error(layer, dequantize(awq_quantize(layer.weights, statistics, {.salient_ratio = 0}))));
}

TEST(AwqQuantize, PadsInputChannelsToWholeGroups) {
  const Layer layer = outlier_layer(61);
  const at::Tensor weights = layer.weights.slice(0, 0, 500).contiguous();
  const at::Tensor activations = layer.activations.slice(2, 0, 500);
  const AwqResult result = awq_quantize(weights, activations);
  EXPECT_EQ(result.Q.sizes(), (std::vector<int64_t>{64, kOut}));
  EXPECT_EQ(result.q_scale.sizes(), (std::vector<int64_t>{500}));
  const at::Tensor restored = awq_dequantize(result.Q, result.scales, result.zeros, result.q_scale, {500, kOut, 128, "awq_int4"});
  EXPECT_EQ(restored.scalar_type(), at::kHalf);
  EXPECT_LT(((restored.to(at::kFloat) - weights).norm() / weights.norm()).item<float>(), 0.15);
}

TEST(AwqQuantize, EdgeCases) {
  const Layer layer = outlier_layer(71);
  EXPECT_EQ(awq_quantize(at::zeros({kIn, kOut}), layer.activations).quantization_error, 0);
  const AwqResult large = awq_quantize(layer.weights * 1000, layer.activations);
  EXPECT_TRUE(at::isfinite(dequantize(large)).all().item<bool>());
  EXPECT_EQ(awq_quantize(layer.weights, at::zeros({1, 4, kIn})).scaled_channels, 0) << "an input that is never active";
  EXPECT_EQ(awq_quantize(layer.weights.to(at::kBFloat16), layer.activations.to(at::kHalf)).scales.sizes(),
            (std::vector<int64_t>{4, kOut}));
  EXPECT_EQ(awq_quantize(layer.weights, layer.activations, {.group_size = -1}).scales.sizes(), (std::vector<int64_t>{1, kOut}));
  EXPECT_THAT(message_of([&] { awq_quantize(layer.weights, layer.activations, {.group_size = 12}); }, ErrorKind::kInvalidArgument),
              HasSubstr("multiple of 8"));
  EXPECT_THAT(
      message_of([&] { awq_quantize(layer.weights, layer.activations, {.salient_ratio = -0.1}); }, ErrorKind::kInvalidArgument),
      HasSubstr("salient_ratio"));
  EXPECT_THAT(message_of([&] { awq_quantize(layer.weights.t(), layer.activations); }, ErrorKind::kInvalidArgument),
              HasSubstr("[96, 512]"));
  at::Tensor broken = layer.weights.clone();
  broken[3][5] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message_of([&] { awq_quantize(broken, layer.activations); }, ErrorKind::kCorruption), HasSubstr("the first is 5"));
}

// A q_scale of the outputs divides columns: what Metal Marlin's own files hold.
TEST(AwqDequantize, ReadsMetalMarlinsScalesOfOutputs) {
  const Layer layer = outlier_layer(81);
  const AwqResult result = awq_quantize(layer.weights, layer.activations, {.salient_ratio = 0});
  const at::Tensor factors = at::linspace(0.5, 2.0, kOut).to(at::kHalf);
  const at::Tensor plain = dequantize(result);
  const at::Tensor scaled = awq_dequantize(result.Q, result.scales, result.zeros, factors, meta_of(), at::kFloat);
  EXPECT_TRUE(at::allclose(scaled * factors.to(at::kFloat), plain));
  EXPECT_THAT(message_of([&] { awq_dequantize(result.Q, result.scales, result.zeros, at::ones({7}), meta_of()); },
                         ErrorKind::kInvalidArgument),
              HasSubstr("q_scale"));
  EXPECT_THAT(
      message_of([&] { awq_dequantize(result.Q, result.scales, result.zeros, factors, meta_of(64)); }, ErrorKind::kInvalidArgument),
      HasSubstr("scales"));
  EXPECT_THAT(message_of([&] { awq_dequantize(result.scales, result.scales, result.zeros, factors, meta_of()); },
                         ErrorKind::kInvalidArgument),
              HasSubstr("Q is"));
}

}  // namespace
}  // namespace salient::metal_marlin
