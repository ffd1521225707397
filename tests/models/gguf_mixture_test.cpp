// The types that llama.cpp's own llama_model_quantize gives to each tensor (scripts/goldens/gguf_export.py).
#include "models/gguf/gguf_mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/json.h"

namespace salient::models {
namespace {

Json goldens() { return read_json_file(std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/gguf_export/mixtures.json"); }

std::map<std::string, quant::GgmlType> types_of(std::string_view format, const Json& json, const GgufMixtureOptions& options = {}) {
  const DecoderConfig config = parse_decoder_config(json, "test");
  const std::vector<GgufTensorPlan> tensors = plan_gguf_tensors(config).tensors;
  const std::vector<quant::GgmlType> types = gguf_mixture(*find_gguf_format(format), config, tensors, options);
  std::map<std::string, quant::GgmlType> result;
  for (size_t i = 0; i < tensors.size(); ++i) result[tensors[i].name] = types[i];
  return result;
}

TEST(GgufMixtureTest, EveryTensorGetsTheTypeThatLlamaCppGivesIt) {
  const Json models = goldens();
  ASSERT_GE(models.size(), 6U);
  for (const auto& [name, model] : models.items()) {
    ASSERT_EQ(model.at("types").size(), gguf_formats().size()) << name;
    for (const auto& [format, golden] : model.at("types").items()) {
      for (const auto& [tensor, type] : types_of(format, model.at("config"))) {
        const std::string expected = golden.at("others").value(tensor, golden.at("plain").get<std::string>());
        EXPECT_EQ(quant::ggml_type_info(type).name, expected) << name << " " << format << " " << tensor;
      }
    }
  }
}

TEST(GgufMixtureTest, GoldensCoverWhatDiffers) {
  const Json models = goldens();
  EXPECT_EQ(models["llama_80"]["types"]["gguf-q4_k_s"]["others"].count("blk.70.attn_v.weight"), 1U);      // the 70B rule
  EXPECT_EQ(models["mixtral_8"]["types"]["gguf-q6_k"]["others"]["blk.0.attn_k.weight"], "Q8_0");          // eight experts
  EXPECT_EQ(models["llama_odd"]["types"]["gguf-q4_k_m"]["others"]["blk.2.ffn_down.weight"], "F16");       // 80 columns
  EXPECT_EQ(models["llama_tied_narrow"]["types"]["gguf-q4_k_m"]["others"]["token_embd.weight"], "Q8_0");  // a narrow head
}

TEST(GgufMixtureTest, ImportanceGivesQ40FirstDownProjectionsOneMoreNumber) {
  const Json config = goldens()["llama_16"]["config"];
  const auto types = types_of("gguf-q4_0", config, {.importance = true});
  EXPECT_EQ(types.at("blk.0.ffn_down.weight"), quant::GgmlType::kQ4_1);
  EXPECT_EQ(types.at("blk.1.ffn_down.weight"), quant::GgmlType::kQ4_1);
  EXPECT_EQ(types.at("blk.2.ffn_down.weight"), quant::GgmlType::kQ4_0);
}

TEST(GgufMixtureTest, PureUsesOneType) {
  for (const auto& [tensor, type] : types_of("gguf-q4_k_m", goldens()["llama_16"]["config"], {.pure = true})) {
    EXPECT_THAT(type, testing::AnyOf(quant::GgmlType::kQ4_K, quant::GgmlType::kF32)) << tensor;
  }
}

TEST(GgufMixtureTest, FormatsAreFoundByName) {
  ASSERT_NE(find_gguf_format("gguf-q5_k_m"), nullptr);
  EXPECT_EQ(find_gguf_format("gguf-q5_k_m")->file_type_id, 17U);
  EXPECT_EQ(find_gguf_format("gguf-q3_k"), nullptr);
}

}  // namespace
}  // namespace salient::models
