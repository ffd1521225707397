// Every architecture through the whole quantization: smoothing alone must keep the function, and AWQ must not be worse than
// rounding to nearest. The checkpoints are those of the golden files, whose logits tests/models/architecture_golden_test.cpp
// compares with transformers.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "models/decoder/decoder.h"
#include "models/decoder/wrappers.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kGroupSize = 32;

using Case = test::GoldenCase;

calibration::TokenBlocks random_tokens(int64_t vocab_size) {
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(vocab_size, {6, 12}, at::kLong);
  tokens.lengths = at::full({6}, 12, at::kLong);
  tokens.lengths[5] = 7;  // one row with padding
  return tokens;
}

class ArchitectureQuantize : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }

  void SetUp() override {
    test::write_golden_checkpoint(GetParam().golden, source());
    original_.emplace(models::Decoder::load(models::Checkpoint(source()), {}));
    options_.model_folder = source();
    options_.output = folder_.path() / "out";
    options_.awq.spec.group_size = kGroupSize;
    options_.awq.scale_search.grid = 4;
    options_.awq.clip_search.steps = 3;
    options_.batch_tokens = 24;  // several batches
  }

  std::filesystem::path source() const { return folder_.path() / "source"; }

  // The image encoder of a multimodal model, bit by bit.
  void expect_other_parts_kept(const models::Checkpoint& after) const {
    const models::Checkpoint before(source());
    const models::DecoderConfig& config = original_->config();
    int64_t others = 0;
    for (const std::string& name : before.names()) {
      if (config.text_spelling == nullptr || !models::is_other_part(*config.text_spelling, name)) continue;
      ++others;
      ASSERT_TRUE(after.contains(name)) << name;
      EXPECT_EQ(after.info(name).dtype, before.info(name).dtype) << name;
      EXPECT_TRUE(at::equal(after.view(name), before.view(name))) << name;
      const std::string part(models::part_of(name));
      if (part.empty() || !after.config().contains("quantization_config")) continue;
      const Json& modules = after.config().at("quantization_config").at("modules_to_not_convert");
      EXPECT_NE(std::find(modules.begin(), modules.end(), part), modules.end()) << part;
    }
    EXPECT_EQ(others > 0, config.wrapper != nullptr);
  }

  at::Tensor logits_of(const models::Decoder& decoder) const {
    at::manual_seed(5);
    const at::Tensor ids = at::randint(decoder.config().vocab_size, {2, 11}, at::kLong);
    return decoder.logits(decoder.hidden_states(ids));
  }

  test::TemporaryFolder folder_;
  std::optional<models::Decoder> original_;
  QuantizeModelOptions options_;
};

TEST_P(ArchitectureQuantize, SmoothingAloneKeepsTheLogits) {
  options_.awq.format = WeightFormat::kFloat;
  quantize_model(options_, random_tokens(original_->config().vocab_size));
  const models::Checkpoint before(source());
  const models::Checkpoint after(options_.output);
  int64_t changed = 0;
  for (const std::string& name : after.names()) {
    ASSERT_EQ(after.info(name).shape, before.info(name).shape) << name;
    ASSERT_EQ(after.info(name).dtype, before.info(name).dtype) << name;
    changed += !at::equal(after.view(name), before.view(name));
  }
  EXPECT_GT(changed, 0) << "no scale was moved: the test shows nothing";
  expect_other_parts_kept(after);
  const at::Tensor expected = logits_of(*original_);
  const at::Tensor found = logits_of(models::Decoder::load(after, {}));
  const double relative = ((found - expected).abs().max() / expected.abs().max()).item<double>();
  EXPECT_LT(relative, 1e-3);
}

TEST_P(ArchitectureQuantize, QuantizedItIsDetectedAndRunsAndIsNotWorseThanRounding) {
  const QuantizeModelResult result = quantize_model(options_, random_tokens(original_->config().vocab_size));
  double rtn = 0;
  double stored = 0;
  for (const LinearReport& report : result.reports) {
    rtn += report.rtn_error;
    stored += report.error;
  }
  EXPECT_GT(rtn, 0.0);
  EXPECT_LE(stored, rtn);

  const models::DetectedModel detected = models::detect_model(result.folder);
  EXPECT_EQ(detected.format, "awq-gemm");
  ASSERT_TRUE(detected.spec.has_value());
  EXPECT_EQ(detected.spec->group_size, kGroupSize);
  EXPECT_EQ(detected.quantized_linears, static_cast<int64_t>(result.reports.size()));
  EXPECT_TRUE(detected.contradictions.empty()) << detected.contradictions.front();

  const models::Decoder quantized = models::Decoder::load(models::Checkpoint(result.folder), {});
  EXPECT_TRUE(quantized.is_quantized());
  expect_other_parts_kept(models::Checkpoint(result.folder));
  const at::Tensor expected = logits_of(*original_);
  const at::Tensor found = logits_of(quantized);
  // Four bits on random weights cost a lot, but what is left must be this model, not another: a wrong layout gives unrelated
  // logits, whose distance is twice the variance.
  const double relative = ((found - expected).square().mean() / expected.var()).item<double>();
  EXPECT_LT(relative, 0.5);
}

INSTANTIATE_TEST_SUITE_P(All, ArchitectureQuantize, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& each) { return test::golden_test_name(each.param); });

}  // namespace
}  // namespace salient::pipeline
