// Choosing bits for each module: what is measured, what is shared, what is fixed, what is kept for a job that was stopped.
#include "pipeline/bit_plan.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "models/decoder/decoder.h"
#include "models/decoder/embedding.h"
#include "pipeline/bit_plan_file.h"
#include "pipeline/quantize_plan.h"
#include "quant/affine.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class BitPlanTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }

  void prepare(const std::string& model_type) {
    const Json file = read_json_file(test::golden_file(model_type));
    const Json& entry = file.at("cases").at(0);
    std::vector<models::PlannedTensor> planned;
    for (const Json& tensor : entry.at("tensors"))
      planned.push_back({tensor.at(0), at::kFloat, tensor.at(1).get<std::vector<int64_t>>()});
    {
      models::CheckpointWriter writer(folder_.path() / "source", models::plan_shards(planned, uint64_t{1} << 30));
      for (const Json& tensor : entry.at("tensors"))
        writer.put(tensor.at(0),
                   test::golden_tensor(tensor.at(0), tensor.at(1).get<std::vector<int64_t>>(), tensor.at(2), tensor.at(3)));
      writer.finish();
    }
    write_file(folder_.path() / "source" / "config.json", dump_json(entry.at("config"), 2));
    checkpoint_.emplace(folder_.path() / "source");
    config_ = models::load_decoder_config(*checkpoint_);
    at::manual_seed(11);
    tokens_.ids = at::randint(96, {6, 12}, at::kLong);
    tokens_.lengths = at::full({6}, 12, at::kLong);
    tokens_.lengths[2] = 7;
    options_.spec.group_size = 32;
    options_.scale_search.grid = 4;
    options_.format = WeightFormat::kCompressedTensors;
    options_.target_bits = 3.5;
    scratch_ = folder_.path() / "scratch";
    fs::create_directories(scratch_);
  }

  BitPlan plan() {
    const at::NoGradGuard no_grad;
    const CalibrationPass pass(config_, tokens_, at::kCPU, 24);
    const StoredDtype stored = stored_dtypes(*checkpoint_, config_, options_);
    const auto embed = [&](ActivationFile& hidden) {
      const models::EmbeddingWeights weights = models::load_embedding(*checkpoint_, config_, at::kFloat, at::kCPU);
      const at::Tensor positions = at::arange(tokens_.ids.size(1), at::kLong).unsqueeze(0);
      hidden.write(0, models::embed(config_, weights, tokens_.ids, positions, at::kFloat));
    };
    return plan_bits({*checkpoint_, config_, options_, tokens_, pass, stored, scratch_, embed, choices_, {}});
  }

  test::TemporaryFolder folder_;
  fs::path scratch_;
  std::optional<models::Checkpoint> checkpoint_;
  models::DecoderConfig config_;
  calibration::TokenBlocks tokens_;
  AwqOptions options_;
  std::vector<int> choices_ = {2, 3, 4, 5, 6, 8};
};

const PlannedModule& module_of(const BitPlan& plan, const std::string& name) {
  for (const PlannedModule& module : plan.modules) {
    if (module.name == name) return module;
  }
  throw std::runtime_error("no module " + name);
}

double mean_bits(const BitPlan& plan) {
  double bits = 0;
  double weights = 0;
  for (const PlannedModule& module : plan.modules) {
    bits += static_cast<double>(module.bits) * static_cast<double>(module.weights);
    weights += static_cast<double>(module.weights);
  }
  return bits / weights;
}

// With nothing scaled, importance * error at the reference width is the divergence of a model in which the module alone is rounded:
// run as a whole.
TEST_F(BitPlanTest, ImportanceIsTheDivergenceOfTheModelWithOneModuleRounded) {
  prepare("qwen3");
  options_.scale = false;
  const BitPlan found = plan();
  const at::NoGradGuard no_grad;
  const at::Tensor counted = (at::arange(12).unsqueeze(0) < tokens_.lengths.unsqueeze(1)).flatten().nonzero().flatten();
  const auto log_probabilities = [&](const std::string& changed) {
    const fs::path folder = folder_.path() / ("changed_" + changed);
    fs::create_directories(folder);
    std::vector<models::PlannedTensor> planned;
    for (const std::string& name : checkpoint_->names()) planned.push_back({name, at::kFloat, checkpoint_->info(name).shape});
    models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
    for (const std::string& name : checkpoint_->names()) {
      at::Tensor tensor = checkpoint_->view(name).to(at::kFloat).clone();
      if (name == changed + ".weight") {
        const int64_t group = quant::resolve_group_size(options_.spec.group_size, tensor.size(1));
        tensor = quant::dequantize(quant::quantize_affine(tensor, {kReferenceBits, group, true, options_.scale_dtype}));
      }
      writer.put(name, tensor);
    }
    writer.finish();
    write_file(folder / "config.json", read_text_file(folder_.path() / "source" / "config.json"));
    const models::Decoder decoder = models::Decoder::load(models::Checkpoint(folder), {});
    return decoder.logits(decoder.hidden_states(tokens_.ids)).flatten(0, 1).index_select(0, counted).log_softmax(-1);
  };
  const at::Tensor expected = log_probabilities("nothing");
  for (const std::string name :
       {"model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}) {
    const double divergence =
        (expected.exp() * (expected - log_probabilities(name))).sum().item<double>() / static_cast<double>(counted.numel());
    const PlannedModule& module = module_of(found, name);
    ASSERT_EQ(module.sensitivity.at(1).first, kReferenceBits);
    EXPECT_GT(divergence, 0) << name;
    EXPECT_NEAR(module.importance * module.sensitivity[1].second, divergence, 1e-3 * divergence + 1e-9) << name;
  }
}

TEST_F(BitPlanTest, BitsStayWithinTheTargetAndErrorsFallWithThem) {
  prepare("qwen3");
  const BitPlan found = plan();
  EXPECT_EQ(found.modules.size(), 7u * static_cast<size_t>(config_.num_hidden_layers));
  EXPECT_LE(found.mean_bits, 3.5 + 1e-9);
  EXPECT_GT(found.mean_bits, 3.0);
  EXPECT_NEAR(mean_bits(found), found.mean_bits, 1e-9);
  for (const PlannedModule& module : found.modules) {
    ASSERT_EQ(module.sensitivity.size(), 6u);
    EXPECT_GT(module.importance, 0) << module.name;
    for (size_t i = 1; i < 6; ++i) EXPECT_LT(module.sensitivity[i].second, module.sensitivity[i - 1].second) << module.name;
    EXPECT_GE(module.bits, 3) << module.name;  // 2 are for targets below 3
  }
  AwqOptions planned = options_;
  for (const PlannedModule& module : found.modules) planned.planned_bits[module.name] = module.bits;
  const std::map<std::string, LinearSetting> stored = quantized_modules(config_, planned);
  ASSERT_EQ(stored.size(), found.modules.size());
  for (const PlannedModule& module : found.modules) EXPECT_EQ(stored.at(module.name).bits, module.bits) << module.name;
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) {
    const std::string prefix = fmt::format("model.layers.{}.", block);
    const auto bits = [&](const char* name) { return module_of(found, prefix + name).bits; };
    EXPECT_EQ(bits("self_attn.q_proj"), bits("self_attn.k_proj"));
    EXPECT_EQ(bits("self_attn.q_proj"), bits("self_attn.v_proj"));
    EXPECT_EQ(bits("mlp.gate_proj"), bits("mlp.up_proj"));
  }
  BitPlan coarser = found;
  options_.target_bits = 2.5;
  choose_bits(coarser, config_, options_, choices_);
  EXPECT_LE(mean_bits(coarser), 2.5 + 1e-9);
  EXPECT_GT(coarser.error, found.error);
  EXPECT_TRUE(fs::is_empty(scratch_));
}

TEST_F(BitPlanTest, OverridesAndTheFormatLimitTheChoice) {
  prepare("qwen3");
  options_.overrides = {{"re:.*layers\\.0\\.mlp\\.down_proj$", 8, {}, {}}, {"o_proj", 16, {}, {}}};
  const BitPlan found = plan();
  EXPECT_EQ(module_of(found, "model.layers.0.mlp.down_proj").bits, 8);
  EXPECT_LE(found.mean_bits, 3.5 + 1e-9);
  EXPECT_THROW(module_of(found, "model.layers.0.self_attn.o_proj"), std::runtime_error);  // stays in float
  options_.overrides.clear();
  options_.format = WeightFormat::kAwqGemm;
  EXPECT_THROW(plan(), Error);  // 4 bits only: 3.5 cannot be reached
  choices_ = {3};
  try {
    plan();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("awq-gemm"));
  }
}

TEST_F(BitPlanTest, ExpertsOfABlockShareTheirBits) {
  prepare("qwen3_moe");
  const BitPlan found = plan();
  std::map<std::string, int> of_block;
  int experts = 0;
  for (const PlannedModule& module : found.modules) {
    EXPECT_TRUE(std::isfinite(module.importance)) << module.name;
    const size_t at = module.name.find(".experts.");
    if (at == std::string::npos) continue;
    ++experts;
    EXPECT_GT(module.importance, 0) << module.name;
    EXPECT_EQ(of_block.emplace(module.name.substr(0, at), module.bits).first->second, module.bits);
  }
  EXPECT_GT(experts, 0);
  EXPECT_LE(mean_bits(found), 3.5 + 1e-9);
}

TEST_F(BitPlanTest, IsTheSameEachTimeAndComesBackFromItsFile) {
  prepare("qwen3");
  BitPlan first = plan();
  save_bit_plan(folder_.path(), "f1", first);
  const std::string text = read_text_file(folder_.path() / "bit_plan.json");
  save_bit_plan(folder_.path(), "f1", plan());
  EXPECT_EQ(read_text_file(folder_.path() / "bit_plan.json"), text);
  EXPECT_FALSE(load_bit_plan(folder_.path(), "f2"));
  const std::optional<BitPlan> loaded = load_bit_plan(folder_.path(), "f1");
  ASSERT_TRUE(loaded);
  ASSERT_EQ(loaded->modules.size(), first.modules.size());
  EXPECT_EQ(loaded->mean_bits, first.mean_bits);
  EXPECT_EQ(loaded->error, first.error);
  for (size_t i = 0; i < first.modules.size(); ++i) {
    EXPECT_EQ(loaded->modules[i].name, first.modules[i].name);
    EXPECT_EQ(loaded->modules[i].bits, first.modules[i].bits);
    EXPECT_EQ(loaded->modules[i].importance, first.modules[i].importance);
    EXPECT_EQ(loaded->modules[i].sensitivity, first.modules[i].sensitivity);
  }
  EXPECT_TRUE(is_bit_plan_file("bit_plan.json"));
  for (const char* damaged : {"", "{\"fingerprint\": \"f1\"}", "[1]", "{\"fingerprint\": \"f1\", \"mean_bits\": \"x\"}"}) {
    write_file(folder_.path() / "bit_plan.json", damaged);
    EXPECT_FALSE(load_bit_plan(folder_.path(), "f1")) << damaged;
  }
}

// Where calibration says nothing of a module, it gets what the target asks for.
TEST_F(BitPlanTest, UnmeasuredModulesGetTheTarget) {
  prepare("qwen3");
  BitPlan found = plan();
  options_.target_bits = 5;
  for (auto& [bits, error] : found.modules.back().sensitivity) error = std::numeric_limits<double>::quiet_NaN();
  choose_bits(found, config_, options_, choices_);
  EXPECT_EQ(found.modules.back().bits, 5);
  EXPECT_TRUE(std::isfinite(found.error));
}

}  // namespace
}  // namespace salient::pipeline
