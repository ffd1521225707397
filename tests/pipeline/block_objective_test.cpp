// The scale search on module outputs, against explicit forward passes in float64.
#include "pipeline/block_objective.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/error.h"
#include "models/decoder/mlp.h"
#include "pipeline/awq_block.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using models::BlockWeights;
using models::FloatLinear;
using models::InputSlot;
using models::LinearSlot;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kRows = 6;
constexpr int64_t kTokens = 12;
constexpr int kBits = 3;
constexpr int64_t kGroupSize = 32;

calibration::TokenBlocks some_tokens() {
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(96, {kRows, kTokens}, at::kLong);
  tokens.lengths = at::full({kRows}, kTokens, at::kLong);
  tokens.lengths[2] = 7;  // the rest is padding, which must count for nothing
  return tokens;
}

Json golden_case(const std::string& model_type, const std::string& name = "default") {
  const Json file = read_json_file(test::golden_file(model_type));
  const auto& cases = file.at("cases");
  return *std::find_if(cases.begin(), cases.end(), [&](const Json& entry) { return entry.at("name") == name; });
}

// Q(W * s) / s in float64 from the definition: range extended to 0, step rounded to float16. `kept`: columns that are not rounded.
at::Tensor rounded(const at::Tensor& weight, const at::Tensor& scales, const at::Tensor& kept = at::empty({0}, at::kLong)) {
  const at::Tensor scaled = (weight * scales).index_fill(1, kept, 0).view({weight.size(0), -1, kGroupSize});
  const at::Tensor low = scaled.amin(2, true).clamp_max(0);
  const at::Tensor high = scaled.amax(2, true).clamp_min(0);
  const double levels = (1 << kBits) - 1;
  const at::Tensor step = ((high - low) / levels).to(at::kHalf).to(at::kFloat);
  const at::Tensor zero = (-low / step).round().clamp(0, levels);
  const at::Tensor codes = ((scaled * (1.0 / step)).round() + zero).clamp(0, levels);
  const at::Tensor all = ((codes - zero).to(at::kDouble) * step.to(at::kDouble)).view(weight.sizes()) / scales.to(at::kDouble);
  return all.index_copy(1, kept, weight.index_select(1, kept).to(at::kDouble));
}

using Weights = std::map<LinearSlot, at::Tensor>;  // float64

// Llama's attention, 4 query heads on 2 of keys, from its definition.
at::Tensor naive_attention(const Weights& w, const at::Tensor& x) {
  const int64_t dim = 16;
  const auto heads = [&](LinearSlot slot) {
    return at::matmul(x, w.at(slot).t()).view({x.size(0), x.size(1), -1, dim}).transpose(1, 2);
  };
  const at::Tensor frequency = at::pow(10000.0, -at::arange(0, dim, 2, at::kDouble) / static_cast<double>(dim));
  const at::Tensor angle = at::outer(at::arange(x.size(1), at::kDouble), frequency);
  const auto turn = [&](const at::Tensor& y) {
    const at::Tensor a = y.narrow(-1, 0, dim / 2);
    const at::Tensor b = y.narrow(-1, dim / 2, dim / 2);
    return at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, -1);
  };
  const at::Tensor q = turn(heads(LinearSlot::kQProj));
  const at::Tensor k = turn(heads(LinearSlot::kKProj)).repeat_interleave(2, 1);
  const at::Tensor v = heads(LinearSlot::kVProj).repeat_interleave(2, 1);
  at::Tensor logits = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(dim));
  logits = logits.masked_fill(at::ones({x.size(1), x.size(1)}, at::kBool).triu(1), -std::numeric_limits<double>::infinity());
  const at::Tensor mixed = at::matmul(at::softmax(logits, -1), v).transpose(1, 2).reshape({x.size(0), x.size(1), -1});
  return at::matmul(mixed, w.at(LinearSlot::kOProj).t());
}

at::Tensor naive_mlp(const Weights& w, const at::Tensor& x) {
  const at::Tensor gate = at::matmul(x, w.at(LinearSlot::kGateProj).t());
  return at::matmul(gate / (1.0 + (-gate).exp()) * at::matmul(x, w.at(LinearSlot::kUpProj).t()), w.at(LinearSlot::kDownProj).t());
}

class ObjectiveTest : public ::testing::Test {
 protected:
  void load(const std::string& model_type, const std::string& name = "default") {
    test::write_golden_checkpoint(golden_case(model_type, name), folder_.path() / "source");
    const models::Checkpoint checkpoint(folder_.path() / "source");
    config_ = std::make_unique<models::DecoderConfig>(models::load_decoder_config(checkpoint));
    layout_ = models::block_layout(*config_, 0);
    weights_ = models::load_block(checkpoint, *config_, 0, at::kFloat, at::kCPU);
    pass_ = std::make_unique<CalibrationPass>(*config_, tokens_, at::kCPU, 2 * kTokens);
    objective_ = std::make_unique<BlockObjective>(*config_, 0, *pass_, folder_.path() / "scratch_");
  }
  // What quantization does before the search; a few channels are far larger than the others.
  void observe() {
    at::manual_seed(5);
    at::Tensor hidden = at::randn({kRows, kTokens, config_->hidden_size});
    hidden.select(2, 3).mul_(8);
    hidden.select(2, 40).mul_(15);
    CalibrationPass::Batch current;
    const models::BlockObserver observer = [&](models::InputId input, const at::Tensor& x) {
      add_statistics(statistics_[input], x, current);
      objective_->keep(input, x, current);
      auto& all = inputs_[input.slot];
      all = all.defined() ? at::cat({all, x}) : x.clone();
    };
    pass_->for_each_batch([&](const CalibrationPass::Batch& batch) {
      current = batch;
      const models::AttentionCall call = pass_->call(weights_, 0, observer);
      models::mlp_half(call, models::attention_half(call, hidden.narrow(0, batch.begin, batch.count)).mlp_input);
    });
    for (auto& [input, statistics] : statistics_) finish_statistics(statistics);
  }
  const at::Tensor& weight(LinearSlot slot) const {
    return std::get<FloatLinear>(weights_.at(models::LinearId{slot, models::kDenseMlp})).weight;
  }
  models::ScalingGroup group_of(InputSlot input) const {
    for (const models::ScalingGroup& group : models::scaling_groups(*config_, layout_)) {
      if (group.input.slot == input && std::holds_alternative<models::NormSlot>(group.smooth)) return group;
    }
    throw std::runtime_error("no such group");
  }
  at::Tensor counted() const { return (at::arange(kTokens).unsqueeze(0) < tokens_.lengths.unsqueeze(1)).flatten(); }
  // Mean over real tokens, sum over channels.
  double naive_error(InputSlot input, const at::Tensor& scales, const at::Tensor& kept = at::empty({0}, at::kLong)) const {
    const bool attention = input == InputSlot::kAttentionInput;
    Weights before;
    for (const LinearSlot slot : {LinearSlot::kQProj, LinearSlot::kKProj, LinearSlot::kVProj, LinearSlot::kOProj,
                                  LinearSlot::kGateProj, LinearSlot::kUpProj, LinearSlot::kDownProj})
      before[slot] = weight(slot).to(at::kDouble);
    Weights after = before;
    for (const models::LinearId id : group_of(input).balance) after[id.slot] = rounded(weight(id.slot), scales, kept);
    const at::Tensor x = inputs_.at(input).to(at::kDouble);
    const at::Tensor change =
        attention ? naive_attention(after, x) - naive_attention(before, x) : naive_mlp(after, x) - naive_mlp(before, x);
    return change.flatten(0, 1).index({counted()}).square().sum(-1).mean().item<double>();
  }
  BlockWeights changed(InputSlot input, const at::Tensor& scales) const {
    BlockWeights result = weights_;
    for (const models::LinearId id : group_of(input).balance)
      std::get<FloatLinear>(result.at(id)).weight = rounded(weight(id.slot), scales).to(at::kFloat);
    return result;
  }
  // mean|x|^ratio over real tokens, normalised as AWQ does.
  at::Tensor candidate(InputSlot input, double ratio) const {
    const at::Tensor x = inputs_.at(input).flatten(0, 1).index({counted()}).abs().to(at::kDouble).mean(0).to(at::kFloat);
    const at::Tensor s = x.pow(ratio).clamp_min(1e-4);
    return s / (s.max() * s.min()).sqrt();
  }

  test::TemporaryFolder folder_;
  calibration::TokenBlocks tokens_ = some_tokens();
  std::unique_ptr<models::DecoderConfig> config_;
  models::BlockLayout layout_;
  BlockWeights weights_;
  std::unique_ptr<CalibrationPass> pass_;
  std::unique_ptr<BlockObjective> objective_;
  BlockStatistics statistics_;
  std::map<InputSlot, at::Tensor> inputs_;
};

TEST_F(ObjectiveTest, EqualsExplicitPassesInFloat64) {
  load("llama");
  observe();
  for (const InputSlot input : {InputSlot::kAttentionInput, InputSlot::kMlpInput}) {
    const BlockObjective::ModuleError error = objective_->measure(group_of(input), weights_);
    EXPECT_EQ(error(weights_), 0.0);
    for (const double ratio : {0.0, 0.3, 0.7, 1.0}) {
      SCOPED_TRACE(fmt::format("input {} ratio {}", static_cast<int>(input), ratio));
      const at::Tensor scales = candidate(input, ratio);
      const double expected = naive_error(input, scales);
      EXPECT_GT(expected, 1e-3);
      EXPECT_NEAR(error(changed(input, scales)), expected, 1e-4 * expected);
    }
  }
}

// What the search chooses is the best of the candidates by the naive measure, identity among them. The parameter: input channels
// kept in float.
class SearchTest : public ObjectiveTest, public ::testing::WithParamInterface<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Salient, SearchTest, ::testing::Values(0, 4));

TEST_P(SearchTest, FindsTheLeastChangeOfTheOutput) {
  load("llama");
  observe();
  AwqOptions options;
  options.salient_ratio = static_cast<double>(GetParam()) / static_cast<double>(config_->hidden_size);
  options.spec.weight_bits = kBits;
  options.spec.group_size = kGroupSize;
  options.scale_search = {10, quant::DuoScaling::kOff, false};
  options.clip = false;
  options.rounding.kind = quant::RoundingKind::kNearest;
  options.format = WeightFormat::kDequantized;
  const StoredDtype stored = [](const std::string&) { return at::kFloat; };
  const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, {}};
  const auto run = [&](BlockObjective* objective) {
    return quantize_block(*config_, layout_, weights_, statistics_, {}, options, stored, nowhere, quantize_linears, objective)
        .reports;
  };
  const std::vector<LinearReport> by_block = run(objective_.get());
  const std::vector<LinearReport> by_gram = run(nullptr);
  const auto ratio_of = [](const std::vector<LinearReport>& reports, const std::string& name) {
    const auto it =
        std::find_if(reports.begin(), reports.end(), [&](const LinearReport& report) { return report.name.ends_with(name); });
    return it->scale_ratio;
  };
  bool differ = false;
  for (const auto& [input, name] :
       {std::pair{InputSlot::kAttentionInput, "k_proj"}, std::pair{InputSlot::kMlpInput, "gate_proj"}}) {
    SCOPED_TRACE(name);
    const at::Tensor salience = inputs_.at(input).flatten(0, 1).index({counted()}).abs().mean(0);
    const at::Tensor kept = std::get<1>(salience.topk(GetParam()));
    double best = 0;
    double best_error = std::numeric_limits<double>::infinity();
    for (int step = 0; step <= 10; ++step) {
      const double error = naive_error(input, candidate(input, step / 10.0), kept);
      if (error < best_error) best = step / 10.0;
      best_error = std::min(error, best_error);
    }
    EXPECT_EQ(ratio_of(by_block, name), best);
    EXPECT_LE(best_error, naive_error(input, at::ones({config_->hidden_size}), kept));
    differ |= ratio_of(by_gram, name) != best;
    for (const LinearReport& report : by_block) EXPECT_EQ(report.salient_channels > 0, GetParam() > 0);
  }
  EXPECT_TRUE(differ) << "both objectives choose the same: the test shows nothing";
  // Linears of their own have the Gram loss either way.
  for (const char* name : {"o_proj", "down_proj"}) EXPECT_EQ(ratio_of(by_block, name), ratio_of(by_gram, name)) << name;
}

TEST_F(ObjectiveTest, TokensWithoutFiniteOutputAreLeftOut) {
  load("llama");
  observe();
  const InputSlot input = InputSlot::kMlpInput;
  at::Tensor& all = inputs_.at(input);
  all[4][5][0] = std::numeric_limits<float>::quiet_NaN();
  CalibrationPass::Batch whole;
  objective_->keep({input, models::kDenseMlp}, all, whole);
  const double found = objective_->measure(group_of(input), weights_)(changed(input, at::ones({64})));
  all[4][5].zero_();  // a token without any change, counted
  const double real = static_cast<double>(counted().sum().item<int64_t>());
  const double expected = naive_error(input, at::ones({64})) * real / (real - 1);
  EXPECT_NEAR(found, expected, 1e-4 * expected);
  BlockWeights infinite = weights_;
  at::Tensor& up = std::get<FloatLinear>(infinite.at(models::LinearId{LinearSlot::kUpProj, models::kDenseMlp})).weight;
  up = up.clone().fill_(std::numeric_limits<float>::infinity());
  EXPECT_FALSE(std::isfinite(objective_->measure(group_of(input), weights_)(infinite)));
}

TEST_F(ObjectiveTest, ModulesAreThoseThatReadTheNorm) {
  const auto modules = [&](const std::string& model_type, const std::string& name, int64_t block = 0) {
    const Json golden = golden_case(model_type, name);
    const fs::path folder = folder_.path() / (model_type + name);
    test::write_golden_checkpoint(golden, folder);
    const models::DecoderConfig config = models::load_decoder_config(models::Checkpoint(folder));
    std::vector<GroupModule> found;
    for (const models::ScalingGroup& group : models::scaling_groups(config, models::block_layout(config, block)))
      found.push_back(module_of(group));
    return found;
  };
  using enum GroupModule;
  EXPECT_EQ(modules("llama", "default"), (std::vector{kAttention, kMlp, kLinear, kLinear}));
  EXPECT_EQ(modules("phi3", "default"), (std::vector{kAttention, kMlp, kLinear, kLinear}));  // fused linears, the same modules
  EXPECT_EQ(modules("qwen3_moe", "default"), (std::vector{kAttention, kMixture, kLinear}));
  EXPECT_EQ(modules("cohere", "default").front(), kAttentionAndMlp);
}

// Both branches of a parallel residual count, each with the other in place.
TEST_F(ObjectiveTest, ParallelBranchesAddUp) {
  load("cohere");
  observe();
  const BlockObjective::ModuleError error = objective_->measure(group_of(InputSlot::kAttentionInput), weights_);
  const at::Tensor x = inputs_.at(InputSlot::kAttentionInput);
  const models::BlockObserver nobody;
  BlockWeights mlp = weights_;
  at::Tensor& gate = std::get<FloatLinear>(mlp.at(models::LinearId{LinearSlot::kGateProj, models::kDenseMlp})).weight;
  gate = gate * 1.1;
  const auto mlp_output = [&](const BlockWeights& w) { return models::mlp_forward(*config_, w.mlp, models::kDenseMlp, x, nobody); };
  BlockWeights attention = weights_;
  at::Tensor& value = std::get<FloatLinear>(attention.at(models::LinearId{LinearSlot::kVProj, models::kDenseMlp})).weight;
  value = value * 0.9;
  at::Tensor attention_change = at::empty_like(x);
  pass_->for_each_batch([&](const CalibrationPass::Batch& batch) {
    const at::Tensor part = x.narrow(0, batch.begin, batch.count);
    const auto output = [&](const BlockWeights& w) { return models::attention_forward(pass_->call(w, 0, nobody), part); };
    attention_change.narrow(0, batch.begin, batch.count).copy_(output(attention) - output(weights_));
  });
  const auto mean_square = [&](const at::Tensor& change) {
    return change.flatten(0, 1).index({counted()}).square().sum(-1, false, at::kDouble).mean().item<double>();
  };
  const at::Tensor mlp_change = mlp_output(mlp) - mlp_output(weights_);
  EXPECT_NEAR(error(mlp), mean_square(mlp_change), 1e-4 * error(mlp));
  EXPECT_NEAR(error(attention), mean_square(attention_change), 1e-4 * error(attention));
  BlockWeights both = mlp;
  std::get<FloatLinear>(both.at(models::LinearId{LinearSlot::kVProj, models::kDenseMlp})).weight = value;
  EXPECT_NEAR(error(both), mean_square(mlp_change + attention_change), 1e-4 * error(both));
}

QuantizeModelResult quantize(const fs::path& folder, const Json& golden, Objective objective) {
  if (!fs::exists(folder / "source")) test::write_golden_checkpoint(golden, folder / "source");
  QuantizeModelOptions options;
  options.model_folder = folder / "source";
  options.output = folder / (objective == Objective::kBlock ? "by_block" : "by_gram");
  options.awq.spec.group_size = kGroupSize;
  options.awq.scale_search.grid = 4;
  options.awq.clip_search.steps = 3;
  options.awq.objective = objective;
  options.batch_tokens = 2 * kTokens;
  return quantize_model(options, some_tokens());
}

// Every kind of attention, fused and parallel linears, with nothing left behind.
TEST_F(ObjectiveTest, EveryKindOfBlockCanBeMeasured) {
  for (const char* model_type : {"llama", "phi3", "falcon", "gemma2", "opt", "qwen3_next", "deepseek_v3"}) {
    SCOPED_TRACE(model_type);
    const QuantizeModelResult result = quantize(folder_.path() / model_type, golden_case(model_type), Objective::kBlock);
    EXPECT_FALSE(result.reports.empty());
    for (const LinearReport& report : result.reports) EXPECT_TRUE(std::isfinite(report.error)) << report.name;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path() / model_type))
      EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr("scratch"))) << entry.path();
  }
}

TEST_F(ObjectiveTest, MixturesFallBackToTheGramLossAndSaySo) {
  const QuantizeModelResult by_block = quantize(folder_.path(), golden_case("qwen3_moe"), Objective::kBlock);
  const QuantizeModelResult by_gram = quantize(folder_.path(), golden_case("qwen3_moe"), Objective::kGram);
  ASSERT_EQ(by_block.reports.size(), by_gram.reports.size());
  int64_t noted = 0;
  for (size_t i = 0; i < by_block.reports.size(); ++i) {
    const LinearReport& report = by_block.reports[i];
    const bool expected = report.name.find(".experts.") != std::string::npos && !report.name.ends_with("down_proj");
    const bool found = std::any_of(report.warnings.begin(), report.warnings.end(),
                                   [](const std::string& warning) { return warning.starts_with("objective block"); });
    EXPECT_EQ(found, expected) << report.name;
    noted += found;
    EXPECT_THAT(by_gram.reports[i].warnings, Not(Contains(HasSubstr("objective"))));
  }
  EXPECT_EQ(noted, 2 * 4 * 2);
}

}  // namespace
}  // namespace salient::pipeline
