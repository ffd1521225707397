// GGUF files of weights that are scaled and not rounded: what llama.cpp's own quantizer is given.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/decoder/decoder.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/io/detect.h"
#include "models/io/gguf.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

using quant::GgmlType;

QuantizationConfig settings(const std::string& yaml) {
  return make_quantization_config(given_settings(ConfigNode::parse("{" + yaml + "}", "test")), "test");
}

at::Tensor logits_of(const std::filesystem::path& model, int64_t vocab_size) {
  const models::Decoder decoder = models::Decoder::load(models::Checkpoint(model), {});
  at::manual_seed(5);
  return decoder.logits(decoder.hidden_states(at::randint(vocab_size, {2, 11}, at::kLong)));
}

struct Case {
  std::string model;
  std::string format;
  std::string file;
  GgmlType type;
};

void PrintTo(const Case& value, std::ostream* out) { *out << value.model << " " << value.format; }

class GgufSmoothed : public ::testing::TestWithParam<Case> {};

TEST_P(GgufSmoothed, IsTheModelWithScalesMoved) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file(GetParam().model)).at("cases").at(0), folder.path() / "source");
  const models::DecoderConfig config = models::load_decoder_config(models::Checkpoint(folder.path() / "source"));
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(config.vocab_size, {6, 12}, at::kLong);
  tokens.lengths = at::full({6}, 12, at::kLong);
  QuantizeModelOptions options;
  options.model_folder = folder.path() / "source";
  options.output = folder.path() / "out";
  options.awq = settings("format: " + GetParam().format + ", bits: 3, group_size: 16, n_grid: 8").awq;
  const QuantizeModelResult result = quantize_model(options, tokens);
  EXPECT_TRUE(result.reports.empty());  // nothing is rounded

  const models::GgufFile file(result.folder / GetParam().file);
  const models::GgufCheckpoint stored(result.folder / GetParam().file);
  const models::Checkpoint source(options.model_folder);
  EXPECT_EQ(file.tensor("blk.0.attn_q.weight").type, GetParam().type);
  EXPECT_EQ(file.tensor("blk.0.attn_norm.weight").type, GgmlType::kF32);
  int64_t moved = 0;
  for (const std::string& name : source.names()) {
    if (!stored.tensors().contains(name)) continue;
    const at::Tensor before = source.view(name).to(at::kFloat);
    moved += ((stored.load(name) - before).abs().max() > 0.02 * before.abs().max()).item<bool>();
  }
  EXPECT_GT(moved, 0) << "no scale was moved: the test shows less than it says";

  const at::Tensor expected = logits_of(options.model_folder, config.vocab_size);
  const at::Tensor found = logits_of(result.folder / GetParam().file, config.vocab_size);
  const double share = GetParam().type == GgmlType::kF16 ? 1e-3 : 1e-2;  // 11 bits and 8
  EXPECT_LT((found - expected).abs().max().item<double>(), share * expected.abs().max().item<double>());

  const models::DetectedModel detected = models::detect_model(result.folder);
  EXPECT_EQ(detected.format, "gguf");
  EXPECT_EQ(detected.contradictions, std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Kinds, GgufSmoothed,
                         ::testing::Values(Case{"llama", "gguf-f16", "model-F16.gguf", GgmlType::kF16},
                                           Case{"qwen3", "gguf-bf16", "model-BF16.gguf", GgmlType::kBF16},
                                           Case{"qwen3_moe", "gguf-f16", "model-F16.gguf", GgmlType::kF16},
                                           Case{"gemma", "gguf-f16", "model-F16.gguf", GgmlType::kF16}),
                         [](const auto& each) { return each.param.model; });

// The search assumes what is said, 4 bits in groups of 128 if nothing is; nothing is clipped.
TEST(GgufSmoothedSettings, SayWhatTheSearchAssumes) {
  const AwqOptions usual = settings("format: gguf-f16").awq;
  EXPECT_EQ(usual.spec.weight_bits, 4);
  EXPECT_EQ(usual.spec.group_size, 128);
  EXPECT_TRUE(usual.spec.zero_point);
  EXPECT_FALSE(usual.clip);
  const AwqOptions three = settings("format: gguf-bf16, bits: 3, group_size: 32, overrides: [{pattern: down_proj, bits: 6}]").awq;
  EXPECT_EQ(three.spec.weight_bits, 3);
  EXPECT_EQ(three.spec.group_size, 32);
  EXPECT_NO_THROW(check_stored(three));
  EXPECT_THAT(test::message_of([&] { check_stored(settings("format: gguf-f16, target_bits: 3.5").awq); }, ErrorKind::kUnsupported),
              ::testing::AllOf(::testing::HasSubstr("target_bits"), ::testing::HasSubstr("gguf-f16")));
  EXPECT_THAT(test::message_of([&] { settings("format: gguf-f16, clip: true"); }, ErrorKind::kInvalidArgument),
              ::testing::HasSubstr("clip"));
}

}  // namespace
}  // namespace salient::pipeline
