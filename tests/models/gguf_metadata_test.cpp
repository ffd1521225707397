// Metadata as llama.cpp's converter writes them (scripts/goldens/gguf_export.py), and back to a configuration.
#include "models/gguf/gguf_metadata.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "models/gguf/gguf_config.h"
#include "models/gguf/gguf_weights.h"
#include "models/io/gguf_writer.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

Json goldens() { return read_json_file(std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/gguf_export/converted.json"); }

Json golden_case(const std::string& model_type, const std::string& name) {
  const Json file = read_json_file(test::golden_file(model_type));
  for (const Json& golden : file.at("cases")) {
    if (golden.at("name") == name) return golden;
  }
  ADD_FAILURE() << model_type << " " << name;
  return {};
}

// Keys that only change how much is reserved or that say what holds without them.
const std::set<std::string>& written_beside() {
  static const std::set<std::string> kKeys{
      "vocab_size",         "attention.key_length",     "attention.value_length",     "rope.freq_base",   "rope.dimension_count",
      "rope.freq_base_swa", "rope.scaling.attn_factor", "expert_feed_forward_length", "rope.scaling.type"};
  return kKeys;
}

// Keys of the converter that say nothing to the loader of this architecture.
bool without_meaning(const std::string& architecture, const std::string& key, const Json& value) {
  if (key == "rope.scaling.original_context_length") return architecture == "phi3";
  if (key == "rope.scaling.yarn_beta_fast") return value == 32.0;
  if (key == "rope.scaling.yarn_beta_slow") return value == 1.0;
  return key == "attention.sliding_window" && architecture != "gemma2" && architecture != "phi3";
}

std::string type_name(const GgufValue& value) {
  std::string name = gguf_type_name(value);
  for (const auto& [ours, theirs] : {std::pair{"u32", "UINT32"}, {"f32", "FLOAT32"}, {"string", "STRING"}, {"bool", "BOOL"}}) {
    if (name == ours) return theirs;
  }
  return name;
}

void expect_equal(const GgufValue& value, const Json& expected, const std::string& key) {
  EXPECT_EQ(type_name(value), expected.at(0).get<std::string>()) << key;
  if (const auto* text = std::get_if<std::string>(&value)) {
    EXPECT_EQ(*text, expected.at(1).get<std::string>()) << key;
  } else if (const auto* number = std::get_if<uint32_t>(&value)) {
    EXPECT_EQ(*number, expected.at(1).get<uint32_t>()) << key;
  } else if (const auto* real = std::get_if<float>(&value)) {
    EXPECT_FLOAT_EQ(*real, expected.at(1).get<float>()) << key;
  } else {
    ADD_FAILURE() << key << " of another type";
  }
}

TEST(GgufMetadataTest, KeysTypesAndValuesAreThoseOfLlamaCppsConverter) {
  for (const Json& golden : goldens()) {
    const auto model_type = golden.at("model_type").get<std::string>();
    SCOPED_TRACE(model_type + " " + golden.at("case").get<std::string>());
    const Json& expected = golden.at("metadata");
    const DecoderConfig config = parse_decoder_config(golden_case(model_type, golden.at("case")).at("config"), "test");
    const auto architecture = expected.at("general.architecture").at(1).get<std::string>();
    std::map<std::string, GgufValue> found;
    for (const GgufPair& pair : gguf_metadata(config, {"name", 0}))
      ASSERT_TRUE(found.emplace(pair.key, pair.value).second) << pair.key;
    for (const auto& [key, value] : expected.items()) {
      const std::string suffix = key.starts_with(architecture + ".") ? key.substr(architecture.size() + 1) : key;
      if (!found.contains(key)) {
        EXPECT_TRUE(without_meaning(architecture, suffix, value.at(1))) << key << " is missing";
      } else {
        expect_equal(found.at(key), value, key);
      }
    }
    for (const auto& [key, value] : found) {
      if (key.starts_with("general.") || expected.contains(key)) continue;
      EXPECT_TRUE(written_beside().contains(key.substr(architecture.size() + 1))) << key << " is too much";
    }
  }
}

TEST(GgufMetadataTest, GeneralKeysComeFirst) {
  const auto pairs = gguf_metadata(parse_decoder_config(golden_case("qwen3", "default").at("config"), "test"), {"Small", 15});
  EXPECT_EQ(pairs.at(0).key, "general.architecture");
  EXPECT_EQ(std::get<std::string>(pairs.at(0).value), "qwen3");
  EXPECT_EQ(std::get<std::string>(pairs.at(2).value), "Small");
  EXPECT_EQ(std::get<uint32_t>(pairs.at(3).value), 15U);
}

// Writes the case as a file of F32 tensors.
std::filesystem::path write_file_of(const Json& golden, const DecoderConfig& config, const std::filesystem::path& folder) {
  const GgufPlan plan = plan_gguf_tensors(config);
  std::map<std::string, at::Tensor> checkpoint;
  for (const Json& t : golden.at("tensors"))
    checkpoint[t.at(0)] =
        test::golden_tensor(t.at(0), t.at(1).get<std::vector<int64_t>>(), t.at(2).get<double>(), t.at(3).get<double>());
  std::vector<GgufTensor> tensors;
  for (const GgufTensorPlan& tensor : plan.tensors) tensors.push_back({tensor.name, quant::GgmlType::kF32, tensor.shape});
  const std::filesystem::path path = folder / "model.gguf";
  GgufWriter writer(path, gguf_metadata(config, {}), tensors);
  for (const GgufTensorPlan& tensor : plan.tensors) {
    if (tensor.sources.empty()) writer.append(tensor.name, at::tensor(tensor.values, at::kFloat));
    for (const std::string& source : tensor.sources) writer.append(tensor.name, to_gguf(tensor, checkpoint.at(source)));
  }
  writer.finish();
  return path;
}

TEST(GgufMetadataTest, ConfigurationAndWeightsComeBack) {
  for (const Json& golden : goldens()) {
    const auto model_type = golden.at("model_type").get<std::string>();
    SCOPED_TRACE(model_type + " " + golden.at("case").get<std::string>());
    const Json source = golden_case(model_type, golden.at("case"));
    const DecoderConfig config = parse_decoder_config(source.at("config"), "test");
    const test::TemporaryFolder folder;
    const GgufFile file(write_file_of(source, config, folder.path()));
    const DecoderConfig read = parse_decoder_config(config_from_gguf(file), "read");
    EXPECT_EQ(read.vocab_size, config.vocab_size);
    EXPECT_EQ(read.hidden_size, config.hidden_size);
    EXPECT_EQ(read.intermediate_size, config.intermediate_size);
    EXPECT_EQ(read.num_key_value_heads, config.num_key_value_heads);
    EXPECT_EQ(read.head_dim, config.head_dim);
    EXPECT_EQ(read.tie_word_embeddings, config.tie_word_embeddings);
    EXPECT_EQ(read.qkv_bias, config.qkv_bias);
    EXPECT_EQ(read.o_bias, config.o_bias);
    EXPECT_EQ(read.mlp_bias, config.mlp_bias);
    EXPECT_EQ(read.moe.num_experts, config.moe.num_experts);
    EXPECT_EQ(read.moe.intermediate_size, config.moe.intermediate_size);
    EXPECT_FLOAT_EQ(static_cast<float>(read.norm_eps), static_cast<float>(config.norm_eps));
    EXPECT_NEAR(read.attention_scale, config.attention_scale, 1e-6);
    EXPECT_NEAR(read.logit_softcap, config.logit_softcap, 1e-6);
    EXPECT_NEAR(read.embedding_multiplier, config.embedding_multiplier, 1e-5);
    EXPECT_NEAR(read.logit_multiplier, config.logit_multiplier, 1e-6);
    const at::Tensor positions = at::arange(6, at::kLong).unsqueeze(0);
    const RotaryTable expected = make_rotary_table(config.ropes.at(0), positions, at::kFloat);
    EXPECT_TRUE(at::allclose(make_rotary_table(read.ropes.at(0), positions, at::kFloat).cos, expected.cos, 1e-5, 1e-5));

    const GgufWeights weights(file, read);
    EXPECT_EQ(weights.names().size(), source.at("tensors").size());
    for (const Json& t : source.at("tensors")) {
      const auto name = t.at(0).get<std::string>();
      const auto shape = t.at(1).get<std::vector<int64_t>>();
      const at::Tensor original = test::golden_tensor(name, shape, t.at(2).get<double>(), t.at(3).get<double>());
      EXPECT_TRUE(at::allclose(weights.load(name).reshape(shape), original, 1e-6, 1e-6)) << name;
    }
  }
}

TEST(GgufMetadataTest, OtherArchitecturesAndTensorsAreRefused) {
  const test::TemporaryFolder folder;
  const auto write = [&](const std::string& architecture) {
    GgufWriter writer(folder.path() / "a.gguf", {{"general.architecture", architecture}},
                      {{"token_embd.weight", quant::GgmlType::kF32, {1, 1}}});
    writer.append("token_embd.weight", at::tensor({1.0F}).reshape({1, 1}));
    writer.finish();
    return GgufFile(folder.path() / "a.gguf");
  };
  EXPECT_THAT(test::message_of([&] { config_from_gguf(write("mamba")); }, ErrorKind::kUnsupported),
              testing::AllOf(testing::HasSubstr("'mamba'"), testing::HasSubstr("qwen3moe"), testing::HasSubstr("a.gguf")));
  EXPECT_THAT(test::message_of([&] { config_from_gguf(write("llama")); }, ErrorKind::kCorruption),
              testing::HasSubstr("llama.context_length"));
}

}  // namespace
}  // namespace salient::models
