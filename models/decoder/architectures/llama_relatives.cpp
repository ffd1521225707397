// Architectures that are Llama but for one or two things each.
#include <cmath>

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_ropes.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr int64_t kMinistralWindow = 4096;
constexpr int64_t kCwmWindow = 8192;

bool every_layer(int64_t) { return true; }

constexpr TensorNames make_apertus_names() {
  TensorNames names = with_head_norms(without_gate(llama_names()));
  names[NormSlot::kAttentionInput] = "attention_layernorm";
  names[NormSlot::kMlpInput] = "feedforward_layernorm";
  names[ParameterSlot::kXieluAlphaP] = "mlp.act_fn.alpha_p";
  names[ParameterSlot::kXieluAlphaN] = "mlp.act_fn.alpha_n";
  names[ParameterSlot::kXieluBeta] = "mlp.act_fn.beta";
  names[ParameterSlot::kXieluEps] = "mlp.act_fn.eps";
  return names;
}

}  // namespace

constexpr TensorNames kApertusNames = make_apertus_names();
constexpr TensorNames kArceeNames = without_gate(llama_names());
constexpr TensorNames kHunyuanNames = with_head_norms(llama_names(), "self_attn.query_layernorm", "self_attn.key_layernorm");

// Every fourth layer has no positions; where windows are used, it is those layers that have them.
void configure_smollm3(const ConfigReader& config, DecoderConfig& decoder) {
  configure_llama(config, decoder);
  const std::vector<int64_t> rotated = config.integers_or_empty("no_rope_layers");  // 1 = rotated, despite the name
  const int64_t interval = config.size_or("no_rope_layer_interval", 4);
  if (!rotated.empty() && rotated.size() < decoder.layers.size()) {
    fail(ErrorKind::kCorruption, "{}: key 'no_rope_layers' has {} entries, expected {}, one a layer", config.where(),
         rotated.size(), decoder.layers.size());
  }
  for (size_t layer = 0; layer < decoder.layers.size(); ++layer) {
    const bool has_rope = rotated.empty() ? (static_cast<int64_t>(layer) + 1) % interval != 0 : rotated[layer] != 0;
    decoder.layers[layer].rope = has_rope ? 0 : -1;
  }
  const int64_t window = config.flag_or("use_sliding_window", false) ? read_window(config, 0) : 0;
  set_layer_types(config, decoder, window, [&](int64_t layer) { return decoder.layers[static_cast<size_t>(layer)].rope < 0; });
}

void configure_ernie4_5(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = config.flag_or("use_bias", false);
}

void configure_seed_oss(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("attention_bias", true);
  decoder.o_bias = config.flag_or("attention_out_bias", false);
  decoder.mlp_bias = config.flag_or("mlp_bias", false);
}

void configure_ministral(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_types(config, decoder, read_window(config, kMinistralWindow), every_layer);
}

void configure_ministral3(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 0);
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;
  const Json assumed = {
      {"rope_type", "yarn"}, {"rope_theta", 1e6},     {"factor", 16.0},    {"original_max_position_embeddings", 16384},
      {"mscale", 1.0},       {"mscale_all_dim", 1.0}, {"beta_fast", 32.0}, {"beta_slow", 1.0}};
  set_rope_if_missing(config, decoder, {.head_dim = decoder.head_dim}, assumed);
  const Json* given = find_rope_object(config);
  decoder.query_growth.beta =
      given == nullptr ? 0.1 : ConfigReader(*given, config.where() + ": rope_parameters").number_or("llama_4_scaling_beta", 0.0);
  decoder.query_growth.period = decoder.ropes.front().original_max_position_embeddings;
}

// Attention's output projection has no bias, even where the others have one.
void configure_helium(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("attention_bias", false);
  decoder.mlp_bias = config.flag_or("mlp_bias", false);
}

void configure_arcee(const ConfigReader& config, DecoderConfig& decoder) {
  configure_llama(config, decoder);
  decoder.gated_mlp = false;
}

void configure_apertus(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.gated_mlp = false;
  if (decoder.hidden_act != "xielu") {
    for (const ParameterSlot slot :
         {ParameterSlot::kXieluAlphaP, ParameterSlot::kXieluAlphaN, ParameterSlot::kXieluBeta, ParameterSlot::kXieluEps}) {
      decoder.names[slot] = "";
    }
  }
  const Json assumed = {{"rope_type", "llama3"},  {"rope_theta", 12e6},
                        {"factor", 8.0},          {"original_max_position_embeddings", 8192},
                        {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  set_rope_if_missing(config, decoder, {.head_dim = decoder.head_dim}, assumed);
}

void configure_cwm(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.mlp_bias = config.flag_or("mlp_bias", false);
  set_layer_types(config, decoder, read_window(config, kCwmWindow), [](int64_t layer) { return layer % 4 != 0; });
  const Json assumed = {{"rope_type", "llama3"},  {"rope_theta", 1e6},
                        {"factor", 16.0},         {"original_max_position_embeddings", 8192},
                        {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}};
  set_rope_if_missing(config, decoder, {.head_dim = decoder.head_dim}, assumed);
}

// Heads are normalized when they have been rotated. "dynamic" with an alpha is NTK-aware scaling by a fixed factor, whatever the
// length.
void configure_hunyuan(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.head_norm_after_rope = true;
  const Json* object = find_rope_object(config);
  if (object == nullptr || decoder.ropes.front().kind != RopeKind::kDynamic) return;
  const ConfigReader parameters(*object, config.where() + ": rotary embedding");
  if (parameters.number_or("alpha", 0.0) == 0.0) return;
  RopeConfig& rope = decoder.ropes.front();
  const auto dim = static_cast<double>(rope.dim);
  rope.kind = RopeKind::kDefault;
  rope.theta *= std::pow(parameters.positive("alpha"), dim / (dim - 2.0));
}

void configure_internlm3(const ConfigReader& config, DecoderConfig& decoder) {
  const bool attention_bias = config.flag_or(config.spelling({"qkv_bias", "attention_bias"}), false);
  decoder.mlp_bias = config.flag_or(config.spelling({"bias", "mlp_bias"}), false);
  if (attention_bias != decoder.mlp_bias) {
    fail(ErrorKind::kUnsupported, "{}: qkv_bias {} and bias {} are not supported, only both or none", config.where(),
         attention_bias, decoder.mlp_bias);
  }
  decoder.qkv_bias = decoder.o_bias = attention_bias;
}

}  // namespace salient::models
