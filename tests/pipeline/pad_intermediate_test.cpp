// MLPs padded by zeros while they are quantized: shapes that were refused work, the others keep their codes.
#include "pipeline/pad_intermediate.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/decoder/decoder.h"
#include "models/io/detect.h"
#include "models/io/gguf.h"
#include "pipeline/engine_notes.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int64_t kWidth = 192;  // of the tiny model's MLPs

AwqOptions options_of(const std::string& yaml) {
  return make_quantization_config(given_settings(ConfigNode::parse("{" + yaml + "}", "test")), "test").awq;
}

at::Tensor logits_of(const fs::path& model) {
  const at::NoGradGuard no_grad;
  const models::Decoder decoder = models::Decoder::load(models::Checkpoint(model), {});
  at::manual_seed(5);
  return decoder.logits(decoder.hidden_states(at::randint(decoder.config().vocab_size, {2, 11}, at::kLong)));
}

double distance(const at::Tensor& found, const at::Tensor& expected) {
  return (found - expected).abs().max().item<double>() / expected.abs().max().item<double>();
}

calibration::TokenBlocks some_tokens() {
  calibration::TokenBlocks tokens;
  at::manual_seed(3);
  tokens.ids = at::randint(test::kTinyVocab, {6, 24}, at::kLong);
  tokens.lengths = at::full({6}, 24, at::kLong);
  return tokens;
}

class PadTiny : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
  static test::TinyQuantization& tiny() {
    static test::TinyQuantization quantization;
    return quantization;
  }
};

TEST_F(PadTiny, AGroupSizeThatDoesNotDivideIsMadeToFit) {
  const std::string plain = "format: awq-gemm, group_size: 128";
  EXPECT_THAT(test::message_of([&] { tiny()(plain); }, ErrorKind::kInvalidArgument),
              ::testing::AllOf(HasSubstr("down_proj"), HasSubstr("--pad-intermediate auto")));
  const test::TinyArtifact& padded = tiny()(plain + ", pad_intermediate: auto");
  EXPECT_EQ(padded.config.at("intermediate_size"), 256);
  EXPECT_EQ(padded.metadata.at("search").at("pad_intermediate"), "auto");
  EXPECT_THAT(padded.messages, Contains(HasSubstr("intermediate_size becomes 256, 64 channels more")));
  const models::DetectedModel found = models::detect_model(padded.folder);
  EXPECT_EQ(found.format, "awq-gemm");
  EXPECT_THAT(found.contradictions, ::testing::IsEmpty());
  // Four bits in groups of 128 on random weights.
  EXPECT_LT(distance(logits_of(padded.folder), logits_of(tiny().source())), 0.25);
  for (const LinearReport& report : padded.result.model.reports) EXPECT_LE(report.error, report.rtn_error) << report.name;
}

// The same codes, and behind them zeros, exactly.
TEST_F(PadTiny, WhereBothArePossibleTheyAreTheSameModel) {
  const std::string rtn = "method: rtn, group_size: 32";
  const test::TinyArtifact& narrow = tiny()(rtn);
  const test::TinyArtifact& wide = tiny()(rtn + ", pad_intermediate: 160");
  EXPECT_EQ(wide.config.at("intermediate_size"), 320);
  const std::string down = "model.layers.1.mlp.down_proj";
  const std::string up = "model.layers.1.mlp.up_proj";
  EXPECT_TRUE(at::equal(wide.weight(down).narrow(1, 0, kWidth), narrow.weight(down)));
  EXPECT_TRUE(at::equal(wide.weight(up).narrow(0, 0, kWidth), narrow.weight(up)));
  EXPECT_EQ(wide.weight(down).narrow(1, kWidth, 320 - kWidth).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(wide.weight(up).narrow(0, kWidth, 320 - kWidth).abs().max().item<float>(), 0.0f);
  EXPECT_LT(distance(logits_of(wide.folder), logits_of(narrow.folder)), 1e-5);
}

// Channels that nothing feeds have no say in the scales of the others.
TEST_F(PadTiny, ScalesFoundAreThoseOfTheModel) {
  const std::string nearest = "group_size: 16, rounding: nearest, clip: false";
  const test::TinyArtifact& narrow = tiny()(nearest);
  const test::TinyArtifact& wide = tiny()(nearest + ", pad_intermediate: 80");
  EXPECT_EQ(wide.config.at("intermediate_size"), 240);
  EXPECT_THAT(test::message_of([&] { tiny()("group_size: 32, pad_intermediate: 80"); }, ErrorKind::kInvalidArgument),
              HasSubstr("group size 32 does not divide 240"));
  const std::string down = "model.layers.0.mlp.down_proj";
  EXPECT_EQ(wide.report(down).scale_kind, narrow.report(down).scale_kind);
  EXPECT_DOUBLE_EQ(wide.report(down).scale_ratio, narrow.report(down).scale_ratio);
  EXPECT_EQ(wide.report(down).dead_channels, narrow.report(down).dead_channels) << "padding is no gap in the calibration";
  EXPECT_NEAR(wide.sum(&LinearReport::error), narrow.sum(&LinearReport::error), 0.02 * narrow.sum(&LinearReport::error));
}

TEST_F(PadTiny, EverythingOnIsAsGood) {
  const std::string awq = "group_size: 32, format: compressed-tensors";
  const test::TinyArtifact& narrow = tiny()(awq);
  const test::TinyArtifact& wide = tiny()(awq + ", pad_intermediate: 256");
  EXPECT_NEAR(wide.sum(&LinearReport::error), narrow.sum(&LinearReport::error), 0.1 * narrow.sum(&LinearReport::error));
  const at::Tensor source = logits_of(tiny().source());
  EXPECT_LT(distance(logits_of(wide.folder), source), 1.2 * distance(logits_of(narrow.folder), source));
}

TEST_F(PadTiny, SmoothedKeepsTheFunction) {
  const test::TinyArtifact& wide = tiny()("format: smoothed, pad_intermediate: auto, group_size: 128");
  EXPECT_EQ(wide.config.at("intermediate_size"), 256);
  EXPECT_LT(distance(logits_of(wide.folder), logits_of(tiny().source())), 1e-3);
}

TEST_F(PadTiny, GgufKQuantsGetTheirBlocks) {
  const test::TemporaryFolder folder;
  QuantizeModelOptions options;
  options.model_folder = tiny().source();
  options.output = folder.path() / "out";
  options.awq = options_of("format: gguf-q6_k, pad_intermediate: auto, n_grid: 4");
  quantize_model(options, some_tokens());
  const models::GgufFile file(options.output / "model-Q6_K.gguf");
  EXPECT_EQ(file.tensor("blk.0.ffn_down.weight").type, quant::GgmlType::kQ6_K);
  EXPECT_EQ(file.tensor("blk.0.ffn_down.weight").shape, (std::vector<int64_t>{test::kTinyHidden, 256}));
  EXPECT_EQ(models::gguf_value<uint32_t>(file.header(), "qwen3.feed_forward_length"), 256u);
  EXPECT_LT(distance(logits_of(options.output), logits_of(tiny().source())), 0.1);
}

TEST_F(PadTiny, StoppedItGivesTheSameBytes) {
  const calibration::TokenBlocks tokens = some_tokens();
  const test::TemporaryFolder folder;
  QuantizeModelOptions options;
  options.model_folder = tiny().source();
  options.output = folder.path() / "whole";
  options.awq = options_of("group_size: 128, pad_intermediate: auto, n_grid: 4");
  quantize_model(options, tokens);
  const auto expected = test::folder_bytes(options.output);
  options.output = folder.path() / "stopped";
  test::expect_same_bytes_when_stopped(options, tokens, {0, 1}, expected);
}

// Experts in one 3-D tensor, of which the stored layout is kept.
TEST(PadMixture, ExpertsInOneTensor) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("granitemoe")).at("cases").at(0), folder.path() / "source");
  calibration::TokenBlocks tokens;
  at::manual_seed(3);
  tokens.ids = at::randint(models::load_decoder_config(folder.path() / "source").vocab_size, {6, 12}, at::kLong);
  tokens.lengths = at::full({6}, 12, at::kLong);
  QuantizeModelOptions options;
  options.model_folder = folder.path() / "source";
  options.output = folder.path() / "out";
  options.awq = options_of("format: smoothed, group_size: -1, pad_intermediate: 40, n_grid: 4");
  quantize_model(options, tokens);
  const models::DecoderConfig config = models::load_decoder_config(folder.path() / "out");
  EXPECT_EQ(config.moe.intermediate_size % 40, 0);
  EXPECT_LT(distance(logits_of(folder.path() / "out"), logits_of(folder.path() / "source")), 1e-3);
}

TEST(PadIntermediate, WidthsThatFormatsAndEnginesTake) {
  const AwqOptions gemm = options_of("format: awq-gemm");
  EXPECT_EQ(fitting_width(29568, 8192, gemm), 29568);  // whole it fits; split over two devices it would not
  EXPECT_EQ(fitting_width(18944, 3584, gemm), 18944);
  EXPECT_EQ(fitting_width(1000, 2048, gemm), 1024);
  EXPECT_EQ(fitting_width(4864, 896, options_of("format: awq-gemv")), 5120);  // the kernel's 1024
  EXPECT_EQ(fitting_width(4864, 896, options_of("format: awq-marlin")), 4864);
  EXPECT_EQ(fitting_width(4992, 1024, options_of("format: awq-marlin")), 5120);  // 256
  EXPECT_EQ(fitting_width(192, 128, options_of("format: gguf-q4_k_m")), 256);
  EXPECT_EQ(fitting_width(192, 128, options_of("format: gguf-q4_0")), 192);
  EXPECT_EQ(fitting_width(1000, 2048, options_of("format: compressed-tensors, group_size: -1, bits: 8")), 1024);
  // What is wrong with the hidden size no width of the MLP mends.
  EXPECT_EQ(fitting_width(1024, 100, gemm), 1024);
}

TEST(PadIntermediate, WarningsSayWhatItWouldDo) {
  const test::TemporaryFolder folder;
  test::write_tiny_checkpoint(folder.path() / "model");
  const models::DecoderConfig config = models::load_decoder_config(folder.path() / "model");
  AwqOptions options = options_of("format: gguf-q4_k_m");
  EXPECT_THAT(engine_warnings(config, options),
              Contains(HasSubstr("--pad-intermediate auto makes MLPs wider by zeros: 192 becomes 256")));
  options.pad_intermediate = kPadAuto;
  EXPECT_THAT(engine_warnings(config, options), ::testing::Not(Contains(HasSubstr("--pad-intermediate"))));
}

TEST(PadIntermediate, Settings) {
  EXPECT_EQ(options_of("bits: 4").pad_intermediate, 0);
  EXPECT_EQ(options_of("pad_intermediate: auto").pad_intermediate, kPadAuto);
  EXPECT_EQ(options_of("pad_intermediate: 1024").pad_intermediate, 1024);
  for (const char* wrong : {"-3", "yes", "1.5", "automatic"})
    EXPECT_THAT(test::message_of([&] { options_of(std::string("pad_intermediate: ") + wrong); }, ErrorKind::kInvalidArgument),
                HasSubstr("pad_intermediate"))
        << wrong;
}

TEST(PadIntermediate, MlpsWithoutAGateAreRefused) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("starcoder2")).at("cases").at(0), folder.path() / "model");
  EXPECT_THAT(test::message_of([&] { open_source(folder.path() / "model", options_of("pad_intermediate: 1000")); },
                               ErrorKind::kUnsupported),
              ::testing::AllOf(HasSubstr("without a gate"), HasSubstr("pad_intermediate 0")));
}

}  // namespace
}  // namespace salient::pipeline
