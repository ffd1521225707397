#include "pipeline/quantize_plan.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/error.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using models::DecoderConfig;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json golden(const std::string& model_type, const std::string& name = "default") {
  const Json file = read_json_file(test::golden_file(model_type));
  for (const Json& entry : file.at("cases")) {
    if (entry.at("name") == name) return entry;
  }
  throw std::runtime_error("no case " + name);
}

DecoderConfig config_of(const std::string& model_type, const std::string& name = "default") {
  return models::parse_decoder_config(golden(model_type, name).at("config"), model_type);
}

void add_tensor(Json& entry, const std::string& name, const std::vector<int64_t>& shape) {
  entry["tensors"].push_back({name, shape, 0.0, 0.1});
}

void remove_tensor(Json& entry, const std::string& name) {
  Json kept = Json::array();
  for (const Json& tensor : entry.at("tensors")) {
    if (tensor.at(0) != name) kept.push_back(tensor);
  }
  ASSERT_EQ(kept.size() + 1, entry.at("tensors").size()) << name;
  entry["tensors"] = kept;
}

AwqOptions small_options() {
  AwqOptions options;
  options.spec.group_size = 32;
  options.scale_search.grid = 2;
  options.clip = false;
  return options;
}

template <typename Body>
Error error_of(const Body& body) {
  try {
    body();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "");
}

std::vector<std::string> check(const Json& entry) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(entry, folder.path() / "model");
  const models::Checkpoint checkpoint(folder.path() / "model");
  return check_tensors(checkpoint, models::load_decoder_config(checkpoint));
}

using Tensors = std::map<std::string, std::pair<at::ScalarType, std::vector<int64_t>>>;

TEST(CheckTensors, CompleteCheckpointsHaveNothingToSay) {
  for (const char* model_type : {"llama", "bloom", "deepseek_v3", "gpt_oss", "qwen3_next", "opt", "stablelm"}) {
    EXPECT_THAT(check(golden(model_type)), IsEmpty()) << model_type;
  }
}

TEST(CheckTensors, WhatServesSpeculativeDecodingIsLeftOutAndCounted) {
  Json entry = golden("deepseek_v3");
  add_tensor(entry, "model.layers.2.eh_proj.weight", {64, 128});  // behind the last block
  add_tensor(entry, "model.layers.2.self_attn.o_proj.weight", {64, 96});
  add_tensor(entry, "mtp.fc.weight", {64, 128});
  EXPECT_THAT(check(entry), ElementsAre(AllOf(HasSubstr("3 tensors are left out"), HasSubstr("speculative decoding"))));
}

TEST(CheckTensors, BuffersAndTheTiedHeadAreNotMentioned) {
  Json llama = golden("llama");
  add_tensor(llama, "model.layers.0.self_attn.rotary_emb.inv_freq", {8});
  EXPECT_THAT(check(llama), IsEmpty());
  Json neox = golden("gpt_neox");
  add_tensor(neox, "gpt_neox.layers.0.attention.bias", {1, 1, 64, 64});
  add_tensor(neox, "gpt_neox.layers.0.attention.masked_bias", {1});
  EXPECT_THAT(check(neox), IsEmpty());
  Json tied = golden("gemma2");
  add_tensor(tied, "lm_head.weight", {96, 64});
  EXPECT_THAT(check(tied), IsEmpty());
}

TEST(CheckTensors, WhatWouldBeLostIsRefused) {
  const auto refused = [](const std::string& model_type, const std::string& tensor, const std::vector<int64_t>& shape) {
    Json entry = golden(model_type);
    add_tensor(entry, tensor, shape);
    const Error error = error_of([&] { check(entry); });
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << tensor;
    EXPECT_THAT(error.message(), AllOf(HasSubstr(tensor), HasSubstr("architecture " + model_type), HasSubstr("lost"))) << tensor;
  };
  refused("llama", "model.layers.0.self_attn.q_proj.bias", {64});  // config.json says that there are none
  refused("llama", "model.layers.1.self_attn.q_norm.weight", {16});
  refused("llama", "vision_tower.patch.weight", {4, 4});
  refused("qwen3_moe", "model.layers.0.mlp.experts.4.up_proj.weight", {32, 64});  // of four
  refused("granitemoe", "model.layers.0.block_sparse_moe.input_linear.bias", {4, 192});
}

TEST(CheckTensors, MissingAndMisshapenTensorsAreNamed) {
  Json missing = golden("deepseek_v3");
  remove_tensor(missing, "model.layers.1.mlp.gate.e_score_correction_bias");
  const Error none = error_of([&] { check(missing); });
  EXPECT_EQ(none.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(none.message(), HasSubstr("model.layers.1.mlp.gate.e_score_correction_bias"));

  for (const auto& [model_type, tensor] :
       std::vector<std::pair<std::string, std::string>>{{"llama", "model.layers.0.self_attn.k_proj.weight"},
                                                        {"llama", "model.norm.weight"},
                                                        {"gpt_oss", "model.layers.1.mlp.experts.gate_up_proj"},
                                                        {"gpt_oss", "model.layers.1.mlp.experts.down_proj_bias"},
                                                        {"gpt_oss", "model.layers.0.self_attn.sinks"}}) {
    Json entry = golden(model_type);
    std::vector<int64_t> shape;
    for (Json& item : entry.at("tensors")) {
      if (item.at(0) != tensor) continue;
      shape = item.at(1).get<std::vector<int64_t>>();
      std::vector<int64_t> other = shape;
      other.back() += 32;
      item[1] = other;
    }
    ASSERT_FALSE(shape.empty()) << tensor;
    const Error error = error_of([&] { check(entry); });
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << tensor;
    EXPECT_THAT(error.message(), AllOf(HasSubstr(tensor), HasSubstr(fmt::format("{}]", shape.back() + 32)),
                                       HasSubstr(fmt::format("expected [{}]", fmt::join(shape, ", ")))));
  }
}

// Routers and norms in float32 beside bfloat16 weights keep their bits.
TEST(Plan, SmoothedTensorsKeepTheDtypeThatEachHasInTheSource) {
  at::set_num_threads(1);
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(golden("qwen3_moe"), folder.path() / "float");
  const models::Checkpoint whole(folder.path() / "float");
  const auto dtype_of = [&](const std::string& name) {
    const bool wide = name.find("norm") != std::string::npos || name.ends_with("mlp.gate.weight");
    return wide ? at::kFloat : at::kBFloat16;
  };
  std::vector<models::PlannedTensor> planned;
  for (const std::string& name : whole.names()) planned.push_back({name, dtype_of(name), whole.info(name).shape});
  models::CheckpointWriter writer(folder.path() / "mixed", models::plan_shards(planned, uint64_t{1} << 30));
  for (const std::string& name : whole.names()) writer.put(name, whole.view(name).to(dtype_of(name)));
  writer.finish();
  fs::copy_file(folder.path() / "float" / "config.json", folder.path() / "mixed" / "config.json");

  calibration::TokenBlocks tokens;
  tokens.ids = at::arange(24, at::kLong).view({2, 12});
  tokens.lengths = at::full({2}, 12, at::kLong);
  QuantizeModelOptions options;
  options.model_folder = folder.path() / "mixed";
  options.output = folder.path() / "out";
  options.awq = small_options();
  options.awq.format = WeightFormat::kFloat;
  quantize_model(options, tokens);
  const models::Checkpoint smoothed(options.output);
  EXPECT_EQ(smoothed.names(), whole.names());
  for (const std::string& name : smoothed.names()) EXPECT_EQ(smoothed.info(name).dtype, dtype_of(name)) << name;
}

// What plan_outer and plan_block name is what lies on disk, and nothing else.
TEST(Plan, IsWhatIsWritten) {
  at::set_num_threads(1);
  calibration::TokenBlocks tokens;
  tokens.ids = at::arange(24, at::kLong).view({2, 12});
  tokens.lengths = at::full({2}, 12, at::kLong);
  for (const char* model_type :
       {"llama", "bloom", "opt", "deepseek_v3", "qwen3_next", "gpt_oss", "granitemoe", "llama4_text", "stablelm", "starcoder2"}) {
    for (const WeightFormat format :
         {WeightFormat::kAwqGemm, WeightFormat::kCompressedTensors, WeightFormat::kDequantized, WeightFormat::kFloat}) {
      SCOPED_TRACE(fmt::format("{} {}", model_type, static_cast<int>(format)));
      const test::TemporaryFolder folder;
      const Json entry = golden(model_type);
      test::write_golden_checkpoint(entry, folder.path() / "model");
      const models::Checkpoint source(folder.path() / "model");
      const DecoderConfig config = models::load_decoder_config(source);
      QuantizeModelOptions options;
      options.model_folder = source.folder();
      options.output = folder.path() / "out";
      options.awq = small_options();
      options.awq.format = format;
      options.awq.ignore = {"lm_head", "re:.*layers.0.*(o_proj|out_proj)$"};
      if (std::string(model_type) == "bloom") options.awq.ignore = {"lm_head", "re:.*h.0.*dense$"};
      if (std::string(model_type) == "opt") options.awq.ignore = {"lm_head", "fc2"};
      const QuantizeModelResult result = quantize_model(options, tokens);

      const StoredDtype stored = stored_dtypes(source, config, options.awq);
      EXPECT_EQ(stored(std::string(config.names.embedding)), row_of(format).packed ? at::kHalf : at::kFloat);
      std::vector<models::PlannedTensor> plan;
      const auto add = [&](const std::vector<models::PlannedTensor>& more) { plan.insert(plan.end(), more.begin(), more.end()); };
      add(plan_outer(config, stored).before);
      for (int64_t block = 0; block < config.num_hidden_layers; ++block)
        add(plan_block(config, block, options.awq, stored, &source));
      add(plan_outer(config, stored).after);
      Tensors planned;
      uint64_t bytes = 0;
      for (const models::PlannedTensor& tensor : plan) {
        EXPECT_TRUE(planned.emplace(tensor.name, std::pair(tensor.dtype, tensor.shape)).second)
            << tensor.name << " is planned twice";
        bytes += models::data_bytes(tensor);
      }
      const models::Checkpoint artifact(options.output);
      Tensors written;
      for (const std::string& name : artifact.names()) written[name] = {artifact.info(name).dtype, artifact.info(name).shape};
      EXPECT_EQ(planned, written);
      EXPECT_EQ(bytes, result.bytes);
      EXPECT_EQ(bytes, artifact.total_bytes());
      const QuantizeEstimate estimate = estimate_quantize(config, options.awq, 24, 4096);
      EXPECT_GE(estimate.disk_bytes, bytes + 2 * 4 * 24 * static_cast<uint64_t>(config.hidden_size));
      EXPECT_LE(estimate.disk_bytes, bytes + 5 * 4 * 24 * static_cast<uint64_t>(config.hidden_size) + 4096)
          << "an estimate that turns jobs away for nothing";
    }
  }
}

TEST(Plan, GroupSizesThatDoNotDivideNameTheLayerInBothFormats) {
  const DecoderConfig config = config_of("llama");  // intermediate 96
  for (const WeightFormat format : {WeightFormat::kAwqGemm, WeightFormat::kFloat}) {
    AwqOptions options = small_options();
    options.format = format;
    options.spec.group_size = 64;
    const Error error = error_of([&] { plan_block(config, 0, options, one_dtype(at::kHalf)); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("model.layers.0.mlp.down_proj"), HasSubstr("64"), HasSubstr("96")));
    options.ignore = {"down_proj"};  // nobody searches it
    EXPECT_NO_THROW(plan_block(config, 0, options, one_dtype(at::kHalf)));
  }
  AwqOptions options = small_options();
  options.format = WeightFormat::kFloat;
  options.spec.group_size = 64;
  EXPECT_THAT(error_of([&] { plan_block(config_of("granitemoe"), 1, options, one_dtype(at::kHalf)); }).message(),
              HasSubstr("experts.0.down_proj"));
}

TEST(Plan, OutputChannelsThatTheLayoutDoesNotHave) {
  DecoderConfig config = config_of("llama");
  config.intermediate_size = 100;
  const Error error = error_of([&] { plan_block(config, 1, small_options(), one_dtype(at::kHalf)); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("100"));
  AwqOptions ignoring = small_options();
  ignoring.ignore = {"down_proj"};
  const Error rows = error_of([&] { plan_block(config, 1, ignoring, one_dtype(at::kHalf)); });
  EXPECT_THAT(rows.message(), AllOf(HasSubstr("model.layers.1.mlp.gate_proj"), HasSubstr("multiples of 8"), HasSubstr("100")));
  EXPECT_THAT(rows.hint(), HasSubstr("--ignore gate_proj"));
}

TEST(FloatModules, AreRoutersGatesAndWhatIsIgnored) {
  EXPECT_THAT(float_modules(config_of("llama"), small_options()), IsEmpty());
  EXPECT_THAT(float_modules(config_of("qwen2_moe"), small_options()),
              ElementsAre("model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate", "model.layers.1.mlp.gate",
                          "model.layers.1.mlp.shared_expert_gate", "lm_head"));
  AwqOptions options = small_options();
  options.ignore = {"lm_head", "o_proj", "re:.*layers.1.mlp.(up|gate)_proj$"};
  EXPECT_THAT(float_modules(config_of("llama"), options),
              ElementsAre("model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.gate_proj",
                          "model.layers.1.mlp.up_proj", "lm_head"));
  options.ignore = {"re:.*experts\\.2\\."};
  EXPECT_THAT(
      float_modules(config_of("gpt_oss"), options),
      ElementsAre("model.layers.0.mlp.router", "model.layers.0.mlp.experts.2.gate_proj", "model.layers.0.mlp.experts.2.up_proj",
                  "model.layers.0.mlp.experts.2.down_proj", "model.layers.1.mlp.router", "model.layers.1.mlp.experts.2.gate_proj",
                  "model.layers.1.mlp.experts.2.up_proj", "model.layers.1.mlp.experts.2.down_proj", "lm_head"));
}

// A mixture large enough that one expert matters.
DecoderConfig large_mixture(int64_t experts, int64_t blocks) {
  DecoderConfig config = config_of("qwen3_moe");
  config.vocab_size = 1000;
  config.hidden_size = 2048;
  config.num_attention_heads = 16;
  config.num_key_value_heads = 4;
  config.head_dim = 128;
  config.moe.intermediate_size = 768;
  config.moe.num_experts = experts;
  config.num_hidden_layers = blocks;
  config.layers.assign(static_cast<size_t>(blocks), config.layers.front());
  return config;
}

TEST(Estimate, MemoryIsThatOfOneBlockAndOneExpert) {
  const AwqOptions options = small_options();
  const auto memory = [&](int64_t experts, int64_t blocks, int64_t tokens, int64_t batch) {
    return estimate_quantize(large_mixture(experts, blocks), options, tokens, batch).peak_memory_bytes;
  };
  const uint64_t base = memory(8, 2, 8192, 4096);
  EXPECT_EQ(memory(8, 48, 8192, 4096), base);
  EXPECT_EQ(memory(8, 2, 1'000'000, 4096), base);
  // The router has a row for each expert; 120 experts' own weights would be 2 GB.
  EXPECT_LE(memory(128, 2, 8192, 4096) - base, 120 * 2048 * 4 * 3U);
  EXPECT_GT(memory(8, 2, 8192, 8192), base);
  EXPECT_LT(memory(8, 2, 8192, 8192) - base, 4096 * (10 * 2048 + 5 * 768) * 4U);
  // Two copies of the largest matrices at least, and their Gram matrices.
  const uint64_t attention = 2 * 2048 * 2048 + 2 * 512 * 2048;
  EXPECT_GT(base, 4 * (2 * (attention + 3 * 768 * 2048) + 3 * 2048 * 2048 + 768 * 768));
}

// A dense block next to a mixture: the larger counts.
TEST(Estimate, TakesTheLargestBlock) {
  DecoderConfig config = large_mixture(8, 2);
  const uint64_t mixture = estimate_quantize(config, small_options(), 100, 100).peak_memory_bytes;
  config.layers[1].moe = false;
  config.intermediate_size = 8192;
  const uint64_t mixed = estimate_quantize(config, small_options(), 100, 100).peak_memory_bytes;
  EXPECT_GT(mixed, mixture + 2 * 4 * 3 * (8192 - 768) * 2048U);
  std::swap(config.layers[0], config.layers[1]);
  EXPECT_EQ(estimate_quantize(config, small_options(), 100, 100).peak_memory_bytes, mixed);
}

// By hand: 4 bits a weight, a zero of 4 bits and a scale of 16 for each group of 32, the rest in 16 bits, and the hidden states in
// float32.
TEST(Estimate, DiskCountsTheArtifactAndTheHiddenStates) {
  const DecoderConfig config = config_of("llama");
  const auto packed = [](uint64_t out, uint64_t in) { return out * in / 2 + out * in / 32 * 5 / 2; };
  const uint64_t block = 2 * packed(64, 64) + 2 * packed(32, 64) + 2 * packed(96, 64) + packed(64, 96) + 2 * 2 * 64;
  const auto blocks = static_cast<uint64_t>(config.num_hidden_layers);
  const uint64_t artifact = blocks * block + 2 * (2 * 96 * 64 + 64);
  const auto disk = [&](const DecoderConfig& of, const AwqOptions& options, int64_t tokens) {
    return estimate_quantize(of, options, tokens, 4096).disk_bytes;
  };
  EXPECT_EQ(disk(config, small_options(), 1000), artifact + 2 * 1000 * 64 * 4);
  EXPECT_EQ(disk(config, small_options(), 0), artifact);
  // Smoothing alone keeps the source's dtype.
  AwqOptions smoothing = small_options();
  smoothing.format = WeightFormat::kFloat;
  const uint64_t elements = blocks * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64) + 2 * 96 * 64 + 64;
  ASSERT_EQ(config.dtype, at::kFloat);
  EXPECT_EQ(disk(config, smoothing, 0), 4 * elements);
  DecoderConfig half = config;
  half.dtype = at::kBFloat16;
  EXPECT_EQ(disk(half, smoothing, 0), 2 * elements);
  // A mixture has three files of hidden states more while it is worked on.
  const DecoderConfig mixture = config_of("qwen3_moe");
  EXPECT_EQ(disk(mixture, small_options(), 1000) - disk(mixture, small_options(), 0), 5 * 1000 * 64 * 4U);
}

}  // namespace
}  // namespace salient::pipeline
