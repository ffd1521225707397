// Quantizing into a GGUF file: what is in it, that it is the model, that no linear is worse than ggml's own rounding, and that a
// stopped job gives the same bytes.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "calibration/token_blocks.h"
#include "common/file.h"
#include "models/decoder/decoder.h"
#include "models/decoder/streamed_head.h"
#include "models/gguf/gguf_config.h"
#include "models/gguf/gguf_weights.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/detect.h"
#include "pipeline/awq_linear.h"
#include "pipeline/gguf_head.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_model.h"
#include "quant/ggml_types.h"
#include "support/demo_tokens.h"
#include "support/golden_checkpoint.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using quant::GgmlType;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

QuantizeModelOptions demo_options(const fs::path& output, WeightFormat format = WeightFormat::kGgufQ4_K_M) {
  QuantizeModelOptions options;
  options.model_folder = kDemo;
  options.output = output;
  options.awq.format = format;
  options.awq.scale_search.grid = 4;
  return options;
}

// The values that the file holds, as a float checkpoint with the source's config.
void write_dense(const fs::path& gguf, const fs::path& source, const fs::path& folder) {
  const models::GgufFile file(gguf);
  const models::GgufWeights weights(file, models::load_decoder_config(models::Checkpoint(source)));
  std::vector<models::PlannedTensor> planned;
  for (const std::string& name : weights.names()) planned.push_back({name, at::kFloat, weights.load(name).sizes().vec()});
  models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
  for (const std::string& name : weights.names()) writer.put(name, weights.load(name));
  writer.finish();
  write_file(folder / "config.json", read_text_file(source / "config.json"));
}

TEST(GgufQuantize, FileHoldsTheMixtureAndNoLinearIsWorseThanGgml) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  const QuantizeModelResult result = quantize_model(demo_options(folder.path() / "out"), test::demo_tokens(12, 128));
  const models::GgufFile file(result.folder / "model-Q4_K_M.gguf");
  const models::DecoderConfig config = models::load_decoder_config(models::Checkpoint(kDemo));
  const models::GgufPlan plan = models::plan_gguf_tensors(config);
  const auto types = models::gguf_mixture(*models::find_gguf_format("gguf-q4_k_m"), config, plan.tensors);
  ASSERT_EQ(file.header().tensors.size(), plan.tensors.size());
  std::map<GgmlType, int> counts;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const models::GgufTensor& tensor = file.tensor(plan.tensors[i].name);
    EXPECT_EQ(tensor.type, types[i]) << tensor.name;
    EXPECT_EQ(tensor.shape, plan.tensors[i].shape) << tensor.name;
    EXPECT_GT(file.read(tensor.name).abs().max().item<float>(), 0.0f) << tensor.name;
    ++counts[tensor.type];
  }
  EXPECT_GT(counts[GgmlType::kQ4_K], 0);
  EXPECT_GT(counts[GgmlType::kQ6_K], 0);
  EXPECT_EQ(models::gguf_value<std::string>(file.header(), "general.name"), "demo");
  EXPECT_EQ(models::gguf_value<uint32_t>(file.header(), "general.file_type"), 15u);
  EXPECT_NE(file.header().find("tokenizer.ggml.tokens"), nullptr);
  for (const char* name : {"tokenizer.json", "quantization_metadata.json", "config.json"})
    EXPECT_TRUE(fs::exists(result.folder / name)) << name;
  // What lies in the folder agrees about what it is.
  const models::DetectedModel found = models::detect_model(result.folder);
  EXPECT_EQ(found.format, "gguf");
  EXPECT_EQ(found.contradictions, std::vector<std::string>());

  ASSERT_EQ(result.reports.size(), 28u);
  double rtn = 0;
  double stored = 0;
  for (const LinearReport& report : result.reports) {
    EXPECT_LT(report.error, report.rtn_error) << report.name;
    EXPECT_TRUE(report.bits == 4 || report.bits == 6) << report.name;
    rtn += report.rtn_error;
    stored += report.error;
  }
  EXPECT_LT(stored, 0.5 * rtn);
}

// Blocks of different types behind each other, of a row permuted in the file, of stacked experts, and norms that store weight - 1:
// eight bits on all of them must leave the model's function, with the scales moved.
class GgufFunction : public ::testing::TestWithParam<std::string> {};

TEST_P(GgufFunction, EightBitsAreTheModel) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file(GetParam())).at("cases").at(0), folder.path() / "source");
  const models::Decoder original = models::Decoder::load(models::Checkpoint(folder.path() / "source"), {});
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(original.config().vocab_size, {6, 12}, at::kLong);
  tokens.lengths = at::full({6}, 12, at::kLong);
  QuantizeModelOptions options = demo_options(folder.path() / "out", WeightFormat::kGgufQ8_0);
  options.model_folder = folder.path() / "source";
  const QuantizeModelResult result = quantize_model(options, tokens);
  int64_t moved = 0;
  for (const LinearReport& report : result.reports) moved += report.scale_kind != "identity";
  EXPECT_GT(moved, 0) << "no scale was moved: the test shows less than it says";
  write_dense(result.folder / "model-Q8_0.gguf", options.model_folder, folder.path() / "dense");
  const models::Decoder stored = models::Decoder::load(models::Checkpoint(folder.path() / "dense"), {});
  at::manual_seed(5);
  const at::Tensor ids = at::randint(original.config().vocab_size, {2, 11}, at::kLong);
  const at::Tensor expected = original.logits(original.hidden_states(ids));
  const at::Tensor found = stored.logits(stored.hidden_states(ids));
  EXPECT_LT(((found - expected).square().mean() / expected.var()).item<double>(), 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GgufFunction, ::testing::Values("llama", "qwen3", "qwen3_moe", "gemma", "qwen2_moe"),
                         [](const auto& each) { return each.param; });

TEST(GgufQuantize, StoppedAfterAnyBlockItGivesTheSameBytes) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(12, 128);
  QuantizeModelOptions options = demo_options(folder.path() / "whole");
  quantize_model(options, tokens);
  const auto expected = test::folder_bytes(options.output);
  ASSERT_TRUE(expected.contains("model-Q4_K_M.gguf"));

  options.output = folder.path() / "stopped";
  test::expect_same_bytes_when_stopped(options, tokens, {0, 2, 4}, expected);  // after the last block the head is still to come
}

TEST(GgufQuantize, IgnoredModulesStayInTheSourcesDtype) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.awq.ignore.push_back("re:.*down_proj");
  options.awq.scale = false;
  const QuantizeModelResult result = quantize_model(options, test::demo_tokens(12, 128));
  EXPECT_EQ(result.reports.size(), 24u);
  const models::GgufFile file(result.folder / "model-Q4_K_M.gguf");
  const models::Checkpoint source(kDemo);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  ASSERT_EQ(source.info(name).dtype, at::kBFloat16);
  EXPECT_EQ(file.tensor("blk.1.ffn_down.weight").type, GgmlType::kBF16);
  EXPECT_TRUE(at::equal(file.read("blk.1.ffn_down.weight"), source.view(name).to(at::kFloat)));
  EXPECT_EQ(file.tensor("blk.1.ffn_up.weight").type, GgmlType::kQ4_K);
}

// The head is rounded last; what is wrong with it shows before the first block.
TEST(GgufQuantize, ADamagedHeadIsFoundFirst) {
  const test::TemporaryFolder folder;
  const models::Checkpoint demo(kDemo);
  std::vector<models::PlannedTensor> planned;
  for (const std::string& name : demo.names()) planned.push_back({name, demo.info(name).dtype, demo.info(name).shape});
  planned.push_back({"lm_head.weight", at::kFloat, demo.info("model.embed_tokens.weight").shape});
  models::CheckpointWriter untied(folder.path() / "untied", models::plan_shards(planned, uint64_t{1} << 30));
  for (const std::string& name : demo.names()) untied.put(name, demo.view(name));
  at::Tensor head = demo.view("model.embed_tokens.weight").to(at::kFloat).clone();
  head[2345][3] = std::numeric_limits<float>::quiet_NaN();
  untied.put("lm_head.weight", head);
  untied.finish();
  Json config = demo.config();
  config["tie_word_embeddings"] = false;
  write_file(folder.path() / "untied/config.json", dump_json(config));
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.model_folder = folder.path() / "untied";
  int64_t blocks = 0;
  options.on_progress = [&](int64_t done, int64_t) { blocks = done; };
  const std::string text = test::message_of([&] { quantize_model(options, test::demo_tokens(12, 128)); }, ErrorKind::kCorruption);
  EXPECT_THAT(text, ::testing::AllOf(::testing::HasSubstr("lm_head.weight"), ::testing::HasSubstr("row 2345")));
  EXPECT_EQ(blocks, 0);
}

TEST(GgufQuantize, SettingsThatTheFileHasNoPlaceForAreRefused) {
  const test::TemporaryFolder folder;
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.awq.overrides = {{"down_proj", 8, {}, {}}};
  EXPECT_THAT(test::message_of([&] { check_quantization(options); }, ErrorKind::kUnsupported), ::testing::HasSubstr("down_proj"));
  options.awq.overrides = {{"down_proj", 16, {}, {}}};
  EXPECT_NO_THROW(check_quantization(options));
  options.awq.target_bits = 4;
  EXPECT_THAT(test::message_of([&] { check_quantization(options); }, ErrorKind::kUnsupported), ::testing::HasSubstr("target_bits"));
}

TEST(GgufQuantize, FormatSaysBitsAndGroups) {
  const auto settings = [](const std::string& yaml) {
    return make_quantization_config(given_settings(ConfigNode::parse("{" + yaml + "}", "test")), "test");
  };
  const QuantizationConfig six = settings("format: gguf-q6_k");
  EXPECT_EQ(six.awq.spec.weight_bits, 6);
  EXPECT_EQ(six.awq.spec.group_size, 16);
  EXPECT_FALSE(six.awq.spec.zero_point);
  EXPECT_FALSE(six.awq.clip);
  EXPECT_EQ(settings("format: gguf-q4_k_m, bits: 4, group_size: 32").awq.spec, settings("format: gguf-q4_k_m").awq.spec);
  EXPECT_EQ(settings("format: awq-gemm").awq.spec, quant::QuantizationSpec());
  for (const char* other : {"bits: 3", "group_size: 128", "symmetric: true", "clip: true"}) {
    EXPECT_THAT(test::message_of([&] { settings(std::string("format: gguf-q4_k_m, ") + other); }, ErrorKind::kInvalidArgument),
                ::testing::HasSubstr("gguf-q4_k_m"))
        << other;
  }
}

// More rows than are quantized at a time, in their order.
TEST(GgufQuantize, HeadIsQuantizedByWhatItReads) {
  at::manual_seed(4);
  models::DecoderConfig config;
  config.vocab_size = models::kHeadPieceRows + 300;
  config.hidden_size = 64;
  const at::Tensor weight = at::randn({config.vocab_size, config.hidden_size}).to(at::kBFloat16);
  const at::Tensor x = at::randn({300, 64}).matmul(at::randn({64, 64}) * 0.2 + at::eye(64));
  quant::InputStatistics input = quant::make_input_statistics(64, at::kCPU);
  quant::accumulate(input, x);
  quant::finish(input);
  const HeadBlocks head = quantize_head(config, weight, GgmlType::kQ5_0, input, {});
  const at::Tensor error = quant::dequantize_ggml(head.blocks, GgmlType::kQ5_0) - weight.to(at::kFloat);
  EXPECT_LT(error.abs().max().item<float>(), 0.6f);
  const double measured = (error.matmul(x.t()).square().sum() / 300).item<double>();
  EXPECT_NEAR(head.error, measured, 1e-3 * measured);
  EXPECT_LT(head.error, 0.7 * head.rtn_error);
}

// What goes on to the next block is what is stored.
TEST(GgufQuantize, TheLinearBecomesWhatItsBlocksStandFor) {
  at::manual_seed(3);
  models::LinearSpec spec;
  spec.name = "layer.up_proj";
  spec.out_features = 24;
  spec.in_features = 256;
  models::FloatLinear linear{at::randn({24, 256}), {}};
  const at::Tensor before = linear.weight.clone();
  const at::Tensor x = at::randn({400, 256}).matmul(at::randn({256, 256}) * 0.2 + at::eye(256));
  quant::InputStatistics input = quant::make_input_statistics(256, at::kCPU);
  quant::accumulate(input, x);
  quant::finish(input);
  AwqOptions options;
  options.format = WeightFormat::kGgufQ4_K_M;
  apply_gguf_format(options);
  for (const GgmlType type :
       {GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K, GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ5_1}) {
    linear.weight = before.clone();
    options.ggml_types[spec.name] = type;
    std::map<std::string, at::Tensor> stored;
    const TensorSink sink{[&](const std::string& name, const at::Tensor& tensor) { stored[name] = tensor; }, {}};
    const StoredDtype floats = [](const std::string&) { return at::kFloat; };
    const LinearJob job{&spec, &linear, {}, measure_untouched(spec, linear.weight, input, options)};
    const std::vector<LinearReport> reports = quantize_linears({job}, input, /*search=*/true, options, floats, sink);
    ASSERT_EQ(stored.size(), 1u);
    EXPECT_TRUE(at::equal(quant::dequantize_ggml(stored.at("layer.up_proj.weight"), type), linear.weight));
    const double measured = ((linear.weight - before).matmul(x.t()).square().sum() / 400).item<double>();
    EXPECT_NEAR(reports[0].error, measured, 1e-3 * measured);
    EXPECT_LT(reports[0].error, reports[0].rtn_error) << quant::ggml_type_info(type).name;
    EXPECT_LE(reports[0].error, reports[0].scaled_error) << quant::ggml_type_info(type).name;
  }
}

}  // namespace
}  // namespace salient::pipeline
