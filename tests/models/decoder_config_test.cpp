#include "models/decoder/decoder_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::models {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json base(const std::string& model_type) {
  return {{"model_type", model_type}, {"vocab_size", 100},        {"hidden_size", 64},       {"intermediate_size", 128},
          {"num_hidden_layers", 4},   {"num_attention_heads", 8}, {"num_key_value_heads", 2}};
}
DecoderConfig parse(const std::string& model_type, const Json& keys = Json::object()) {
  Json config = base(model_type);
  config.update(keys);
  return parse_decoder_config(config, "config.json");
}
void expect_error(const std::string& model_type, const Json& keys, ErrorKind kind, const std::string& text) {
  try {
    parse(model_type, keys);
    ADD_FAILURE() << "no error for " << keys;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.message(), AllOf(HasSubstr(text), HasSubstr("config.json")));
  }
}

TEST(DecoderConfig, OldAndNewStyleAreTheSame) {
  const Json scaling = {
      {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  Json old_scaling = scaling;
  old_scaling["rope_type"] = "llama3";
  Json new_rope = old_scaling;
  new_rope["rope_theta"] = 500000.0;
  const DecoderConfig a = parse("llama", {{"rope_theta", 500000.0}, {"rope_scaling", old_scaling}, {"torch_dtype", "bfloat16"}});
  const DecoderConfig b = parse("llama", {{"rope_parameters", new_rope}, {"dtype", "bfloat16"}});
  for (const DecoderConfig& config : {a, b}) {
    EXPECT_EQ(config.rope.kind, RopeKind::kLlama3);
    EXPECT_EQ(config.rope.theta, 500000.0);
    EXPECT_EQ(config.rope.factor, 8.0);
    EXPECT_EQ(config.rope.high_freq_factor, 4.0);
    EXPECT_EQ(config.rope.original_max_position_embeddings, 8192);
    EXPECT_EQ(config.dtype, at::kBFloat16);
  }
  EXPECT_EQ(parse("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).rope.kind, RopeKind::kLinear);
  EXPECT_EQ(parse("llama", {{"rope_scaling", nullptr}, {"rope_theta", 5e4}}).rope.theta, 5e4);
}

TEST(DecoderConfig, DefaultsOfTransformers) {
  Json config = base("llama");
  config.erase("num_key_value_heads");
  const DecoderConfig llama = parse_decoder_config(config, "x");
  EXPECT_EQ(llama.num_key_value_heads, 8);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.rms_norm_eps, 1e-6);
  EXPECT_EQ(llama.rope.theta, 10000.0);
  EXPECT_FALSE(llama.tie_word_embeddings);
  EXPECT_EQ(llama.dtype, at::kFloat);
  EXPECT_EQ(parse("qwen3").head_dim, 128);
  EXPECT_EQ(parse("qwen3", {{"head_dim", 32}}).head_dim, 32);
  EXPECT_EQ(parse("mistral", {{"head_dim", nullptr}}).head_dim, 8);
}

TEST(DecoderConfig, BiasesByArchitecture) {
  const DecoderConfig llama = parse("llama", {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
  const DecoderConfig qwen2 = parse("qwen2");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.o_bias || qwen2.mlp_bias || qwen2.qk_norm);
  const DecoderConfig qwen3 = parse("qwen3", {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.o_bias && qwen3.qk_norm);
  EXPECT_FALSE(qwen3.mlp_bias);
  EXPECT_FALSE(parse("mistral", {{"attention_bias", true}}).qkv_bias);
}

TEST(DecoderConfig, SlidingWindows) {
  EXPECT_THAT(parse("llama", {{"sliding_window", 5}}).layer_sliding_window, Each(0));
  EXPECT_THAT(parse("mistral", {{"sliding_window", 5}}).layer_sliding_window, ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(parse("mistral", {{"sliding_window", nullptr}}).layer_sliding_window, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(parse("mistral").layer_sliding_window, Each(4096));
  EXPECT_THAT(parse("qwen2", {{"sliding_window", 5}, {"max_window_layers", 1}}).layer_sliding_window, Each(0));
  EXPECT_THAT(parse("qwen2", {{"sliding_window", 5}, {"max_window_layers", 1}, {"use_sliding_window", true}}).layer_sliding_window,
              ElementsAre(0, 5, 5, 5));
  const Json types = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(parse("qwen3", {{"sliding_window", 5}, {"use_sliding_window", true}, {"layer_types", types}}).layer_sliding_window,
              ElementsAre(0, 5, 0, 5));
  expect_error("qwen3", {{"sliding_window", 5}, {"layer_types", types}}, ErrorKind::kCorruption, "layer_types[1]");
  expect_error("qwen3", {{"layer_types", {"full_attention"}}}, ErrorKind::kCorruption, "expected a list of 4");
}

TEST(DecoderConfig, TokenIds) {
  DecoderConfig config = parse("llama", {{"eos_token_id", {7, 8}}, {"bos_token_id", 1}, {"pad_token_id", -1}});
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 8));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_FALSE(config.pad_token_id.has_value());
  add_generation_config(config, {{"eos_token_id", {8, 9}}, {"pad_token_id", 3}, {"bos_token_id", 2}}, "generation_config.json");
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 8, 9));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.pad_token_id, 3);
  EXPECT_THAT(parse("llama", {{"eos_token_id", 5}}).eos_token_ids, ElementsAre(5));
  expect_error("llama", {{"eos_token_id", "</s>"}}, ErrorKind::kCorruption, "eos_token_id");
}

TEST(DecoderConfig, RefusesWhatIsNotThere) {
  expect_error("gemma2", Json::object(), ErrorKind::kUnsupported, "llama, mistral, qwen2, qwen3");
  expect_error("llama", {{"hidden_act", "relu2"}}, ErrorKind::kUnsupported, "relu2");
  for (const char* kind : {"yarn", "dynamic", "longrope", "mrope"}) {
    expect_error("qwen2", {{"rope_scaling", {{"type", kind}, {"factor", 4.0}}}}, ErrorKind::kUnsupported, kind);
  }
  expect_error("llama", {{"partial_rotary_factor", 0.5}}, ErrorKind::kUnsupported, "partial_rotary_factor");
  expect_error("llama", {{"dtype", "float8_e4m3fn"}}, ErrorKind::kUnsupported, "float8_e4m3fn");
}

TEST(DecoderConfig, RefusesBrokenValues) {
  expect_error("llama", {{"vocab_size", "many"}}, ErrorKind::kCorruption, "vocab_size");
  expect_error("llama", {{"hidden_size", 0}}, ErrorKind::kCorruption, "hidden_size");
  expect_error("llama", {{"hidden_size", int64_t{1} << 40}}, ErrorKind::kCorruption, "hidden_size");
  expect_error("llama", {{"num_hidden_layers", 2'000'000'000}}, ErrorKind::kCorruption, "num_hidden_layers");
  expect_error("llama", {{"num_key_value_heads", 3}}, ErrorKind::kCorruption, "num_key_value_heads 3");
  expect_error("llama", {{"hidden_size", 65}}, ErrorKind::kCorruption, "hidden_size 65");
  expect_error("llama", {{"head_dim", 7}}, ErrorKind::kCorruption, "head_dim 7 is odd");
  expect_error("llama", {{"rms_norm_eps", -1.0}}, ErrorKind::kCorruption, "rms_norm_eps");
  expect_error("llama", {{"rope_theta", 0}}, ErrorKind::kCorruption, "rope_theta");
  expect_error("llama", {{"rope_scaling", {{"rope_type", "linear"}}}}, ErrorKind::kCorruption, "factor");
  expect_error("llama", {{"rope_scaling", "linear"}}, ErrorKind::kCorruption, "rope_scaling");
  Json config = base("llama");
  config.erase("hidden_size");
  EXPECT_THROW(parse_decoder_config(config, "x"), Error);
  EXPECT_THROW(parse_decoder_config(Json::array(), "x"), Error);
}

}  // namespace
}  // namespace salient::models
