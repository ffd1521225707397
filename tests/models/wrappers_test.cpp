#include "models/decoder/wrappers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/error.h"
#include "models/decoder/architecture.h"
#include "models/decoder/block_layout.h"
#include "models/io/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

DecoderConfig parse(const char* text) { return parse_decoder_config(Json::parse(text), "config.json"); }

TEST(Wrappers, TheirTextModelsAreArchitectures) {
  std::set<std::string_view> types;
  for (const Architecture& row : architectures()) types.insert(row.model_type);
  for (const Wrapper& wrapper : wrappers()) {
    SCOPED_TRACE(std::string(wrapper.model_type));
    EXPECT_TRUE(types.insert(wrapper.model_type).second);
    EXPECT_EQ(find_wrapper(wrapper.model_type), &wrapper);
    ASSERT_FALSE(wrapper.text_models.empty());
    for (const TextModel* text : wrapper.text_models) {
      EXPECT_NO_THROW(find_architecture(text->architecture));
      EXPECT_TRUE(Json::parse(text->defaults).is_object());
    }
  }
  EXPECT_EQ(find_wrapper("llama"), nullptr);
}

// config.json of published models: much of what the nested classes assume is left out.
TEST(Wrappers, PublishedConfigurationsAreRead) {
  // google/gemma-3-4b-it
  const DecoderConfig gemma =
      parse(R"({"model_type": "gemma3", "eos_token_id": [1, 106], "torch_dtype": "bfloat16", "text_config": {"hidden_size": 2560,
    "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024}, "vision_config": {"hidden_size": 1152}})");
  EXPECT_EQ(gemma.model_type, "gemma3_text");
  EXPECT_EQ(gemma.vocab_size, 262208);
  EXPECT_EQ(gemma.num_attention_heads, 8);
  EXPECT_EQ(gemma.num_key_value_heads, 4);
  EXPECT_EQ(gemma.head_dim, 256);
  EXPECT_TRUE(gemma.tie_word_embeddings);
  EXPECT_EQ(gemma.dtype, at::kBFloat16);
  EXPECT_THAT(gemma.eos_token_ids, ElementsAre(1, 106));
  EXPECT_EQ(gemma.layers.at(4).sliding_window, 1024);
  EXPECT_EQ(gemma.layers.at(5).sliding_window, 0);
  EXPECT_EQ(gemma.names.embedding, "language_model.model.embed_tokens.weight");
  // llava-hf/llava-1.5-7b-hf
  const DecoderConfig llava = parse(
      R"({"model_type": "llava", "torch_dtype": "float16", "text_config": {"max_position_embeddings": 4096, "model_type": "llama",
    "rms_norm_eps": 1e-05, "torch_dtype": "float16", "vocab_size": 32064}, "vision_config": {"hidden_size": 1024}})");
  EXPECT_EQ(llava.hidden_size, 4096);
  EXPECT_EQ(llava.intermediate_size, 11008);
  EXPECT_EQ(llava.num_hidden_layers, 32);
  EXPECT_EQ(llava.vocab_size, 32064);
  EXPECT_FALSE(llava.tie_word_embeddings);
  // llava-hf/llava-v1.6-mistral-7b-hf
  const DecoderConfig next =
      parse(R"({"model_type": "llava_next", "text_config": {"intermediate_size": 14336, "max_position_embeddings": 32768,
    "model_type": "mistral", "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "sliding_window": null, "vocab_size": 32064}})");
  EXPECT_EQ(next.num_key_value_heads, 8);
  EXPECT_EQ(next.head_dim, 128);
  EXPECT_EQ(next.layers.at(0).sliding_window, 0);
  // Qwen/Qwen2.5-VL-7B-Instruct
  const DecoderConfig qwen =
      parse(R"({"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 128000,
    "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "use_sliding_window": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vision_config": {"depth": 32,
    "hidden_size": 1280}, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 152064})");
  EXPECT_EQ(qwen.model_type, "qwen2");
  EXPECT_EQ(qwen.hidden_size, 3584);
  EXPECT_EQ(qwen.ropes.at(0).kind, RopeKind::kDefault);
  EXPECT_EQ(qwen.ropes.at(0).theta, 1e6);
  EXPECT_TRUE(qwen.qkv_bias);
  EXPECT_EQ(qwen.names.embedding, "model.embed_tokens.weight");
  // Qwen/Qwen3-VL-30B-A3B-Instruct
  const DecoderConfig mixture = parse(
      R"({"model_type": "qwen3_vl_moe", "text_config": {"attention_bias": false, "decoder_sparse_step": 1, "dtype": "bfloat16",
    "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 262144, "mlp_only_layers": [], "model_type": "qwen3_vl_moe_text",
    "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000, "vocab_size": 151936}, "tie_word_embeddings": false})");
  EXPECT_EQ(mixture.dtype, at::kBFloat16);
  EXPECT_FALSE(mixture.tie_word_embeddings);
  EXPECT_EQ(mixture.ropes.at(0).theta, 5e6);
  EXPECT_TRUE(expert_layout(mixture, 0, 0).at(0).fused->transposed);
  EXPECT_EQ(block_layout(mixture, 1).linears.at(0).name, "model.language_model.layers.1.self_attn.q_proj");
}

TEST(Wrappers, WhatIsNotTriedIsRefused) {
  const auto message = [](const char* text, ErrorKind kind) -> std::string {
    try {
      parse(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.message();
      return error.message();
    }
    ADD_FAILURE() << "no error for " << text;
    return "";
  };
  EXPECT_THAT(message(R"({"model_type": "llava"})", ErrorKind::kCorruption),
              AllOf(HasSubstr("config.json"), HasSubstr("text_config")));
  EXPECT_THAT(message(R"({"model_type": "llava", "text_config": 7})", ErrorKind::kCorruption),
              HasSubstr("config.json: text_config"));
  EXPECT_THAT(message(R"({"model_type": "llava", "text_config": {"model_type": "opt"}})", ErrorKind::kUnsupported),
              AllOf(HasSubstr("'opt' inside of a 'llava'"), HasSubstr("'qwen2'")));
  // Errors of nested keys say where they are.
  EXPECT_THAT(message(R"({"model_type": "llava", "text_config": {"hidden_size": "x"}})", ErrorKind::kCorruption),
              HasSubstr("config.json: text_config: key 'hidden_size'"));
}

TEST(Wrappers, NamesOfTheParts) {
  const TextSpelling* outer =
      find_spelling([](const std::string& name) { return name == "language_model.model.embed_tokens.weight"; });
  const TextSpelling* inner =
      find_spelling([](const std::string& name) { return name == "model.language_model.embed_tokens.weight"; });
  const TextSpelling* plain = find_spelling([](const std::string& name) { return name == "model.embed_tokens.weight"; });
  ASSERT_TRUE(outer != nullptr && inner != nullptr && plain != nullptr);
  EXPECT_EQ(find_spelling([](const std::string&) { return false; }), nullptr);
  EXPECT_TRUE(is_other_part(*outer, "vision_tower.ln_pre.weight"));
  EXPECT_TRUE(is_other_part(*outer, "image_newline"));
  EXPECT_FALSE(is_other_part(*outer, "language_model.lm_head.weight"));
  EXPECT_TRUE(is_other_part(*inner, "model.visual.merger.norm.weight"));
  EXPECT_FALSE(is_other_part(*inner, "model.language_model.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(is_other_part(*inner, "lm_head.weight"));
  EXPECT_TRUE(is_other_part(*inner, "lm_heads.weight"));
  EXPECT_FALSE(is_other_part(*inner, "mtp.norm.weight"));
  EXPECT_TRUE(is_other_part(*plain, "visual.merger.mlp.0.weight"));
  EXPECT_FALSE(is_other_part(*plain, "model.layers.9.unheard_of"));
  EXPECT_EQ(part_of("model.visual.merger.norm.weight"), "visual");
  EXPECT_EQ(part_of("vision_tower.ln_pre.weight"), "vision_tower");
  EXPECT_EQ(part_of("model.image_newline"), "");
  EXPECT_EQ(without_spelling(*outer, "language_model.model.layers.11.mlp.gate"), "layers.11.mlp.gate");
  EXPECT_EQ(without_spelling(*outer, "language_model.lm_head"), "lm_head");
  EXPECT_EQ(without_spelling(*plain, "model.layers.0.mlp.gate"), "layers.0.mlp.gate");
}

// Mistral Small's config.json is silent about a head of its own, and its class assumes none.
TEST(Wrappers, AHeadThatIsThereIsUsed) {
  Json golden = read_json_file(test::golden_file("mistral3")).at("cases").at(0);
  ASSERT_FALSE(golden.at("config").contains("tie_word_embeddings"));
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(golden, folder.path() / "with");
  EXPECT_FALSE(load_decoder_config(Checkpoint(folder.path() / "with")).tie_word_embeddings);
  for (auto tensor = golden.at("tensors").begin(); tensor != golden.at("tensors").end(); ++tensor) {
    if (tensor->at(0) != "language_model.lm_head.weight") continue;
    golden.at("tensors").erase(tensor);
    break;
  }
  test::write_golden_checkpoint(golden, folder.path() / "without");
  EXPECT_TRUE(load_decoder_config(Checkpoint(folder.path() / "without")).tie_word_embeddings);
}

}  // namespace
}  // namespace salient::models
