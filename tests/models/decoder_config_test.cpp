#include "models/decoder/decoder_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

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
std::vector<int64_t> windows(const DecoderConfig& config) {
  std::vector<int64_t> list;
  for (const LayerConfig& layer : config.layers) list.push_back(layer.sliding_window);
  return list;
}
std::vector<int64_t> ropes(const DecoderConfig& config) {  // of the layers
  std::vector<int64_t> list;
  for (const LayerConfig& layer : config.layers) list.push_back(layer.rope);
  return list;
}
bool has_head_norms(const DecoderConfig& config) {
  return !config.names[NormSlot::kQuery].empty() && !config.names[NormSlot::kKey].empty();
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
    ASSERT_EQ(config.ropes.size(), 1u);
    EXPECT_EQ(config.ropes[0].kind, RopeKind::kLlama3);
    EXPECT_EQ(config.ropes[0].theta, 500000.0);
    EXPECT_EQ(config.ropes[0].factor, 8.0);
    EXPECT_EQ(config.ropes[0].high_freq_factor, 4.0);
    EXPECT_EQ(config.ropes[0].original_max_position_embeddings, 8192);
    EXPECT_EQ(config.dtype, at::kBFloat16);
  }
  EXPECT_EQ(parse("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).ropes[0].kind, RopeKind::kLinear);
  EXPECT_EQ(parse("llama", {{"rope_scaling", nullptr}, {"rope_theta", 5e4}}).ropes[0].theta, 5e4);
}

TEST(DecoderConfig, DefaultsOfTransformers) {
  Json config = base("llama");
  config.erase("num_key_value_heads");
  const DecoderConfig llama = parse_decoder_config(config, "x");
  EXPECT_EQ(llama.num_key_value_heads, 8);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.norm_eps, 1e-6);
  EXPECT_EQ(llama.ropes[0].theta, 10000.0);
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
  EXPECT_FALSE(qwen2.o_bias || qwen2.mlp_bias || has_head_norms(qwen2));
  const DecoderConfig qwen3 = parse("qwen3", {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(qwen3.qkv_bias && qwen3.o_bias && has_head_norms(qwen3));
  EXPECT_FALSE(qwen3.mlp_bias);
  EXPECT_FALSE(parse("mistral", {{"attention_bias", true}}).qkv_bias);
}

TEST(DecoderConfig, SlidingWindows) {
  EXPECT_THAT(windows(parse("llama", {{"sliding_window", 5}})), Each(0));
  EXPECT_THAT(windows(parse("mistral", {{"sliding_window", 5}})), ElementsAre(5, 5, 5, 5));
  EXPECT_THAT(windows(parse("mistral", {{"sliding_window", nullptr}})), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(windows(parse("mistral")), Each(4096));
  EXPECT_THAT(windows(parse("qwen2", {{"sliding_window", 5}, {"max_window_layers", 1}})), Each(0));
  EXPECT_THAT(windows(parse("qwen2", {{"sliding_window", 5}, {"max_window_layers", 1}, {"use_sliding_window", true}})),
              ElementsAre(0, 5, 5, 5));
  const Json types = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(windows(parse("qwen3", {{"sliding_window", 5}, {"use_sliding_window", true}, {"layer_types", types}})),
              ElementsAre(0, 5, 0, 5));
  expect_error("qwen3", {{"sliding_window", 5}, {"layer_types", types}}, ErrorKind::kCorruption, "layer_types[1]");
  expect_error("qwen3", {{"layer_types", {"full_attention"}}}, ErrorKind::kCorruption, "expected a list of 4");
  const Json linear = {"full_attention", "linear_attention", "full_attention", "full_attention"};
  expect_error("qwen3", {{"layer_types", linear}}, ErrorKind::kUnsupported, "layer_types[1]");
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

TEST(DecoderConfig, RotaryEmbeddingsByLayerType) {
  const DecoderConfig old = parse("gemma3_text", {{"sliding_window", 5},
                                                  {"sliding_window_pattern", 2},
                                                  {"head_dim", 8},
                                                  {"rope_theta", 3e6},
                                                  {"rope_local_base_freq", 2e4},
                                                  {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}});
  const Json rope = {{"full_attention", {{"rope_type", "linear"}, {"rope_theta", 3e6}, {"factor", 8.0}}},
                     {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}};
  const Json types = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  const DecoderConfig now =
      parse("gemma3_text", {{"sliding_window", 5}, {"head_dim", 8}, {"layer_types", types}, {"rope_parameters", rope}});
  for (const DecoderConfig& config : {old, now}) {
    EXPECT_THAT(windows(config), ElementsAre(5, 0, 5, 0));
    EXPECT_THAT(ropes(config), ElementsAre(1, 0, 1, 0));
    ASSERT_EQ(config.ropes.size(), 2u);
    EXPECT_EQ(config.ropes[0].kind, RopeKind::kLinear);
    EXPECT_EQ(config.ropes[0].theta, 3e6);
    EXPECT_EQ(config.ropes[0].factor, 8.0);
    EXPECT_EQ(config.ropes[1].kind, RopeKind::kDefault);
    EXPECT_EQ(config.ropes[1].theta, 2e4);
  }
  const DecoderConfig assumed = parse("gemma3_text");
  EXPECT_EQ(assumed.ropes[0].theta, 1e6);
  EXPECT_EQ(assumed.ropes[1].theta, 1e4);
  EXPECT_EQ(parse("olmo3", {{"rope_theta", 7e4}}).ropes[1].theta, 7e4);
  expect_error("olmo3", {{"rope_parameters", {{"rope_type", "default"}}}}, ErrorKind::kCorruption, "sliding_attention");
  expect_error("llama", {{"rope_parameters", rope}}, ErrorKind::kUnsupported, "differ by layer type");
  expect_error("gemma3_text", {{"rope_parameters", {{"full_attention", 1}}}, {"rope_scaling", Json::object()}},
               ErrorKind::kCorruption, "full_attention");
}

TEST(DecoderConfig, LayersWithoutPositions) {
  EXPECT_THAT(ropes(parse("smollm3")), ElementsAre(0, 0, 0, -1));
  EXPECT_THAT(ropes(parse("smollm3", {{"no_rope_layers", {0, 1, 0, 1}}})), ElementsAre(-1, 0, -1, 0));
  EXPECT_THAT(windows(parse("smollm3", {{"use_sliding_window", true}, {"sliding_window", 5}})), ElementsAre(0, 0, 0, 5));
  EXPECT_THAT(ropes(parse("cohere2")), ElementsAre(0, 0, 0, -1));
  EXPECT_THAT(ropes(parse("cohere2", {{"sliding_window_pattern", 2}})), ElementsAre(0, -1, 0, -1));
  const DecoderConfig letters = parse("exaone4", {{"sliding_window", 5}, {"sliding_window_pattern", "LG"}});
  EXPECT_THAT(ropes(letters), ElementsAre(0, -1, 0, -1));
  EXPECT_THAT(windows(letters), ElementsAre(5, 0, 5, 0));
  EXPECT_THAT(windows(parse("exaone4", {{"sliding_window", 5}, {"sliding_window_pattern", "LLLL"}})), ElementsAre(5, 5, 5, 0));
  const DecoderConfig everywhere = parse("exaone4", {{"sliding_window", nullptr}, {"sliding_window_pattern", nullptr}});
  EXPECT_THAT(ropes(everywhere), Each(0));
  EXPECT_THAT(windows(everywhere), Each(0));
  expect_error("exaone4", {{"sliding_window_pattern", "LLX"}}, ErrorKind::kCorruption, "LLX");
  expect_error("smollm3", {{"no_rope_layers", {1, 1}}}, ErrorKind::kCorruption, "no_rope_layers");
}

// What published files say in ways of their own.
TEST(DecoderConfig, SpellingsOfPublishedFiles) {
  EXPECT_EQ(parse("gemma", {{"hidden_act", "gelu"}}).hidden_act, "gelu_pytorch_tanh");
  EXPECT_EQ(parse("gemma", {{"hidden_act", "gelu"}, {"hidden_activation", nullptr}}).hidden_act, "gelu_pytorch_tanh");
  EXPECT_EQ(parse("gemma2", {{"attn_logit_softcapping", nullptr}}).attention_softcap, 0.0);
  EXPECT_EQ(parse("gemma2").attention_softcap, 50.0);
  EXPECT_EQ(parse("gemma2", {{"query_pre_attn_scalar", 64}}).attention_scale, 0.125);
  EXPECT_EQ(parse("granite", {{"logits_scaling", 8.0}}).logit_multiplier, 0.125);
  const Json alpha = {{"type", "dynamic"}, {"alpha", 1000.0}, {"factor", 1.0}};
  const DecoderConfig hunyuan = parse("hunyuan_v1_dense", {{"rope_scaling", alpha}});
  EXPECT_EQ(hunyuan.ropes[0].kind, RopeKind::kDefault);
  EXPECT_DOUBLE_EQ(hunyuan.ropes[0].theta, 1e4 * std::pow(1000.0, 8.0 / 6.0));
  const DecoderConfig cwm = parse("cwm", {{"head_dim", 8}});
  EXPECT_EQ(cwm.ropes[0].kind, RopeKind::kLlama3);
  EXPECT_EQ(cwm.ropes[0].factor, 16.0);
  const DecoderConfig ministral = parse("ministral3", {{"head_dim", 8}});
  EXPECT_EQ(ministral.ropes[0].kind, RopeKind::kYarn);
  EXPECT_EQ(ministral.query_growth.beta, 0.1);
  EXPECT_EQ(ministral.query_growth.period, 16384);
  EXPECT_EQ(parse("ministral3", {{"head_dim", nullptr}}).head_dim, 8);
  expect_error("internlm3", {{"qkv_bias", true}, {"bias", false}}, ErrorKind::kUnsupported, "qkv_bias");
  expect_error("gemma3_text", {{"use_bidirectional_attention", true}}, ErrorKind::kUnsupported, "use_bidirectional_attention");
}

TEST(DecoderConfig, RefusesWhatIsNotThere) {
  expect_error("gemma9", Json::object(), ErrorKind::kUnsupported, "gemma9");
  expect_error("llama", {{"hidden_act", "relu9"}}, ErrorKind::kUnsupported, "relu9");
  expect_error("qwen2", {{"rope_scaling", {{"type", "ntk"}, {"factor", 4.0}}}}, ErrorKind::kUnsupported, "ntk");
  expect_error("llama", {{"dtype", "float8_e4m3fn"}}, ErrorKind::kUnsupported, "float8_e4m3fn");
}

TEST(DecoderConfig, RefusesSizesWhoseProductsOverflow) {
  constexpr int64_t kMost32 = 2'147'483'647;
  constexpr int64_t kMost64 = 9'223'372'036'854'775'807;
  expect_error("stablelm", {{"qk_layernorm", true}, {"num_attention_heads", kMost32}, {"num_key_value_heads", kMost32}},
               ErrorKind::kCorruption, "num_attention_heads");
  expect_error("llama", {{"head_dim", 2'147'483'646}}, ErrorKind::kCorruption, "width of the attention heads");
  const Json linear = {{"linear_num_key_heads", kMost32}, {"linear_num_value_heads", kMost32}};
  expect_error("qwen3_next", linear, ErrorKind::kCorruption, "linear attention's key heads");
  expect_error("qwen3_next", {{"linear_key_head_dim", kMost32}}, ErrorKind::kCorruption, "linear attention's keys");
  expect_error("glm4_moe", {{"n_shared_experts", kMost64}}, ErrorKind::kCorruption, "shared experts");
  expect_error("mixtral", {{"num_local_experts", 70'000}}, ErrorKind::kCorruption, "number of experts");
  expect_error("hunyuan_v1_moe", {{"moe_intermediate_size", kMost64}, {"num_shared_expert", 2}}, ErrorKind::kCorruption,
               "moe_intermediate_size");
}

TEST(DecoderConfig, RefusesBrokenValues) {
  expect_error("llama", {{"vocab_size", "many"}}, ErrorKind::kCorruption, "vocab_size");
  expect_error("llama", {{"hidden_size", 0}}, ErrorKind::kCorruption, "hidden_size");
  expect_error("llama", {{"hidden_size", int64_t{1} << 40}}, ErrorKind::kCorruption, "hidden_size");
  expect_error("llama", {{"num_hidden_layers", 2'000'000'000}}, ErrorKind::kCorruption, "num_hidden_layers");
  expect_error("llama", {{"num_key_value_heads", 3}}, ErrorKind::kCorruption, "num_key_value_heads 3");
  expect_error("llama", {{"hidden_size", 65}}, ErrorKind::kCorruption, "hidden_size 65");
  expect_error("llama", {{"head_dim", 7}}, ErrorKind::kCorruption, "7 of 7 channels");
  expect_error("llama", {{"partial_rotary_factor", 1.5}}, ErrorKind::kCorruption, "partial_rotary_factor 1.5");
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
