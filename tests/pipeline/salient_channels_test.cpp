// Input channels kept in float: which they are, and that rounding the others neither sees nor uses them.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/error.h"
#include "models/io/checkpoint.h"
#include "pipeline/awq_linear.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int64_t kIn = 128;
constexpr int64_t kOut = 48;
constexpr int64_t kTokens = 400;

// Correlated inputs, as compensation needs them; `outliers` are 30 times larger than the others.
at::Tensor inputs(const std::vector<int64_t>& outliers) {
  at::manual_seed(1);
  at::Tensor x = at::matmul(at::randn({kTokens, kIn}), at::eye(kIn) + 0.08 * at::randn({kIn, kIn}));
  for (const int64_t channel : outliers) x.select(1, channel).mul_(30);
  return x;
}

quant::InputStatistics statistics_of(const at::Tensor& x) {
  quant::InputStatistics statistics = quant::make_input_statistics(x.size(1), at::kCPU);
  for (int64_t begin = 0; begin < kTokens; begin += 100) {
    const at::Tensor part = x.narrow(0, begin, 100);
    if (begin == 300)
      quant::accumulate_held_back(statistics, part);
    else
      quant::accumulate(statistics, part);
  }
  quant::finish(statistics);
  return statistics;
}

at::Tensor some_weight() {
  at::manual_seed(2);
  return at::randn({kOut, kIn}) * 0.1;
}

AwqOptions some_options(double ratio, quant::RoundingKind kind = quant::RoundingKind::kGram) {
  AwqOptions options;
  options.spec.group_size = 32;
  options.spec.weight_bits = 3;
  options.format = WeightFormat::kDequantized;
  options.rounding.kind = kind;
  options.clip_search.steps = 4;
  options.salient_ratio = ratio;
  return options;
}

struct Result {
  LinearReport report;
  at::Tensor stored;
  at::Tensor salient;  // int64, columns that are stored as they were; undefined = none
};

Result quantize(const at::Tensor& weight, const at::Tensor& x, const AwqOptions& options) {
  const quant::InputStatistics statistics = statistics_of(x);
  models::LinearSpec spec;
  spec.name = "model.layers.0.mlp.up_proj";
  spec.out_features = weight.size(0);
  spec.in_features = weight.size(1);
  models::FloatLinear linear{weight.clone(), {}};
  Result result;
  std::map<std::string, at::Tensor> stored;
  const TensorSink sink{[&](const std::string& name, const at::Tensor& tensor) { stored[name] = tensor.clone(); }, {}};
  const UntouchedWeight untouched = measure_untouched(spec, weight, statistics, options);
  const StoredDtype dtype = [](const std::string&) { return at::kFloat; };
  result.report = quantize_linears({{&spec, &linear, {}, untouched}}, statistics, /*search=*/true, options, dtype, sink).front();
  result.stored = stored.at(spec.name + ".weight");
  EXPECT_TRUE(at::equal(result.stored, linear.weight));
  if (result.report.salient_channels > 0) result.salient = (result.stored == weight).all(0).nonzero().flatten();
  return result;
}

double real_error(const at::Tensor& stored, const at::Tensor& weight, const at::Tensor& x) {
  return at::matmul(x.to(at::kDouble), (stored - weight).to(at::kDouble).t()).square().sum().item<double>() / kTokens;
}

TEST(SalientChannels, ErrorFallsWithTheRatio) {
  const at::Tensor weight = some_weight();
  const at::Tensor x = inputs({3, 17, 64, 100});
  for (const auto kind : {quant::RoundingKind::kNearest, quant::RoundingKind::kGram, quant::RoundingKind::kAdaround}) {
    SCOPED_TRACE(to_string(kind));
    double last = std::numeric_limits<double>::infinity();
    for (const double ratio : {0.0, 0.008, 0.024, 0.04, 0.15, 0.3, 0.5}) {
      SCOPED_TRACE(ratio);
      const Result result = quantize(weight, x, some_options(ratio, kind));
      const auto count = static_cast<int64_t>(std::llround(ratio * kIn));
      EXPECT_EQ(result.report.salient_channels, count);
      EXPECT_LT(result.report.error, last);
      EXPECT_NEAR(result.report.error, real_error(result.stored, weight, x), 1e-3 * result.report.error);
      EXPECT_LE(result.report.error, result.report.scaled_error * (1 + 1e-6));
      last = result.report.error;
      if (count == 0) {
        EXPECT_FALSE(result.salient.defined());
        continue;
      }
      const at::Tensor largest = std::get<1>(x.abs().mean(0).topk(count));
      EXPECT_TRUE(at::equal(std::get<0>(largest.sort()), result.salient));
      EXPECT_TRUE(at::equal(result.stored.index_select(1, result.salient), weight.index_select(1, result.salient)));
      EXPECT_FALSE(at::equal(result.stored, weight));
      const std::string bits = fmt::format("{:.3g} bits", 3.0 + 13.0 * static_cast<double>(count) / kIn);
      EXPECT_THAT(result.report.warnings, Contains(AllOf(HasSubstr(fmt::format("{} of 128", count)), HasSubstr(bits))));
    }
    EXPECT_GT(last, 0.0);
  }
}

at::Tensor others(const Result& result) {
  at::Tensor rest = result.stored.clone();
  return rest.index_fill_(1, result.salient, 0);
}

// Neither ranges nor clipping nor compensation know what the float channels hold.
TEST(SalientChannels, WeightsOfSalientChannelsDoNotTouchTheOthers) {
  const at::Tensor x = inputs({3, 17, 64, 100});
  const at::Tensor weight = some_weight();
  at::Tensor other = weight.clone();
  other.select(1, 17).mul_(-50);
  other.select(1, 100).add_(7);
  for (const auto kind : {quant::RoundingKind::kNearest, quant::RoundingKind::kGram}) {
    const Result a = quantize(weight, x, some_options(0.03, kind));
    const Result b = quantize(other, x, some_options(0.03, kind));
    ASSERT_TRUE(at::equal(a.salient, at::tensor({3, 17, 64, 100}, at::kLong)));
    EXPECT_TRUE(at::equal(others(a), others(b)));
    EXPECT_TRUE(at::equal(b.stored.select(1, 17), other.select(1, 17)));
    EXPECT_DOUBLE_EQ(a.report.error, b.report.error);
  }
  // The same weights do matter where nothing is kept.
  EXPECT_GT(quantize(other, x, some_options(0)).report.error, 10 * quantize(weight, x, some_options(0)).report.error);
}

TEST(SalientChannels, InputsOfSalientChannelsDoNotTouchTheOthers) {
  const at::Tensor weight = some_weight();
  const at::Tensor x = inputs({3, 17});
  at::Tensor follows = x.clone();  // what channel 17 reads now follows from its neighbour, which compensation would use
  follows.select(1, 17).copy_(x.select(1, 18) * 30);
  const Result a = quantize(weight, x, some_options(0.016));
  const Result b = quantize(weight, follows, some_options(0.016));
  ASSERT_TRUE(at::equal(a.salient, b.salient));
  EXPECT_GT(a.report.off_diagonal, 0.0) << "nothing was compensated: the test shows nothing";
  EXPECT_TRUE(at::equal(others(a), others(b)));
}

TEST(SalientChannels, AutomaticChoiceTakesOutliersAndNothingElse) {
  const at::Tensor weight = some_weight();
  AwqOptions options = some_options(0.1);
  options.salient_auto = true;
  const Result even = quantize(weight, inputs({}), options);
  EXPECT_EQ(even.report.salient_channels, 0);
  EXPECT_FALSE(even.salient.defined());
  const Result some = quantize(weight, inputs({3, 17, 64}), options);
  ASSERT_TRUE(some.salient.defined());
  EXPECT_TRUE(at::equal(some.salient, at::tensor({3, 17, 64}, at::kLong)));
  EXPECT_EQ(some.report.salient_channels, 3);
  options.salient_ratio = 0.016;  // of three that are worth it, two are allowed
  EXPECT_EQ(quantize(weight, inputs({3, 17, 64}), options).report.salient_channels, 2);
  options.salient_auto = false;
  EXPECT_EQ(quantize(weight, inputs({}), options).report.salient_channels, 2);
}

// Linears that read one input choose for themselves.
TEST(SalientChannels, EachLinearHasItsOwn) {
  AwqOptions options = some_options(0.1);
  options.salient_auto = true;
  options.rounding.off_diagonal = 1.0;  // chosen for all linears of an input at once, else
  const at::Tensor x = inputs({3, 17, 64});
  const quant::InputStatistics statistics = statistics_of(x);
  std::vector<at::Tensor> weights = {some_weight(), some_weight().flip({0}).contiguous(), some_weight()};
  weights[2].select(1, 17).zero_();  // no error: nothing to keep
  std::vector<models::LinearSpec> specs(3);
  std::vector<models::FloatLinear> linears;
  std::vector<LinearJob> jobs;
  for (size_t i = 0; i < 3; ++i) linears.push_back({weights[i].clone(), {}});
  for (size_t i = 0; i < 3; ++i) {
    specs[i].name = fmt::format("linear_{}", i);
    specs[i].in_features = kIn;
    jobs.push_back({&specs[i], &linears[i], {}, measure_untouched(specs[i], weights[i], statistics, options)});
  }
  const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, {}};
  const auto reports = quantize_linears(
      jobs, statistics, true, options, [](const std::string&) { return at::kFloat; }, nowhere);
  EXPECT_EQ(reports[0].salient_channels, 3);
  EXPECT_EQ(reports[1].salient_channels, 3);
  EXPECT_EQ(reports[2].salient_channels, 2);
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(reports[i].name, specs[i].name);
    EXPECT_NEAR(reports[i].error, real_error(linears[i].weight, weights[i], x), 1e-3 * reports[i].error);
    EXPECT_TRUE(at::equal(linears[i].weight, quantize(weights[i], x, options).stored)) << "not as it is alone";
    for (const int64_t channel : {3, 64})
      EXPECT_TRUE(at::equal(linears[i].weight.select(1, channel), weights[i].select(1, channel)));
  }
}

TEST(SalientChannels, PackedFormatsSayWhatCanHoldThem) {
  AwqOptions options = some_options(0.01);
  options.spec.weight_bits = 4;
  for (const WeightFormat format : {WeightFormat::kAwqGemm, WeightFormat::kCompressedTensors}) {
    options.format = format;
    try {
      check_stored(options);
      ADD_FAILURE() << to_string(format);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("salient_ratio"), HasSubstr(std::string(to_string(format)))));
      EXPECT_THAT(error.hint(), HasSubstr("dequantized"));
    }
  }
  for (const WeightFormat format : {WeightFormat::kDequantized, WeightFormat::kFloat}) {
    options.format = format;
    EXPECT_NO_THROW(check_stored(options));
  }
}

class SalientModel : public ::testing::Test {
 protected:
  QuantizeModelResult run(const std::string& model_type, const std::string& name, const AwqOptions& awq) {
    const fs::path source = folder_.path() / model_type;
    if (!fs::exists(source)) {
      const Json file = read_json_file(test::golden_file(model_type));
      test::write_golden_checkpoint(file.at("cases").front(), source);
    }
    QuantizeModelOptions options;
    options.model_folder = source;
    options.output = folder_.path() / name;
    options.awq = awq;
    options.awq.scale_search.grid = 4;
    at::manual_seed(11);
    calibration::TokenBlocks tokens;
    tokens.ids = at::randint(96, {6, 12}, at::kLong);
    tokens.lengths = at::full({6}, 12, at::kLong);
    return quantize_model(options, tokens);
  }
  at::Tensor tensor(const std::string& folder, const std::string& name) const {
    const models::Checkpoint checkpoint(folder_.path() / folder);
    return checkpoint.view(name).to(at::kFloat).clone();
  }
  static int64_t equal_columns(const at::Tensor& a, const at::Tensor& b) { return (a == b).all(0).sum().item<int64_t>(); }
  test::TemporaryFolder folder_;
};

// Without scales the stored columns are those of the source, bit by bit; with them, those of the smoothed model.
TEST_F(SalientModel, StoredColumnsAreExact) {
  AwqOptions options = some_options(0.1, quant::RoundingKind::kNearest);
  options.clip = false;
  options.scale = false;
  for (const LinearReport& report : run("llama", "unscaled", options).reports) {
    const at::Tensor source = tensor("llama", report.name + ".weight");
    EXPECT_EQ(report.salient_channels, std::llround(0.1 * static_cast<double>(source.size(1)))) << report.name;
    EXPECT_EQ(equal_columns(tensor("unscaled", report.name + ".weight"), source), report.salient_channels) << report.name;
    EXPECT_LT(report.error, report.rtn_error);
  }
  options.scale = true;
  options.propagate_error = false;
  const QuantizeModelResult scaled = run("llama", "scaled", options);
  options.format = WeightFormat::kFloat;
  run("llama", "smoothed", options);
  for (const LinearReport& report : scaled.reports) {
    const at::Tensor smoothed = tensor("smoothed", report.name + ".weight");
    EXPECT_EQ(equal_columns(tensor("scaled", report.name + ".weight"), smoothed), report.salient_channels) << report.name;
    EXPECT_LE(report.error, report.rtn_error) << report.name;
  }
  EXPECT_TRUE(std::any_of(scaled.reports.begin(), scaled.reports.end(),
                          [](const LinearReport& report) { return report.scale_kind != "identity"; }));
}

TEST_F(SalientModel, ExpertsKeepTheirs) {
  for (const char* model_type : {"qwen3_moe", "gpt_oss"}) {
    SCOPED_TRACE(model_type);
    const QuantizeModelResult none = run(model_type, std::string(model_type) + "_none", some_options(0));
    const QuantizeModelResult kept = run(model_type, std::string(model_type) + "_kept", some_options(0.2));
    double before = 0;
    double after = 0;
    for (size_t i = 0; i < kept.reports.size(); ++i) {
      EXPECT_GT(kept.reports[i].salient_channels, 0) << kept.reports[i].name;
      before += none.reports[i].error;
      after += kept.reports[i].error;
    }
    EXPECT_LT(after, 0.95 * before);
  }
}

}  // namespace
}  // namespace salient::pipeline
