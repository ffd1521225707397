// Mixtures with DeepSeek-V3's router over an ordinary attention: GLM 4.5, Solar Open, dots.llm1 and K-EXAONE. Layers after the last
// one (prediction of further tokens) are left alone.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_glm_names() {
  TensorNames names = with_head_norms(mixture_names());
  names[ParameterSlot::kRouterCorrection] = "mlp.gate.e_score_correction_bias";
  names.shared_expert = "mlp.shared_experts.";
  return names;
}

constexpr TensorNames make_solar_names() {
  TensorNames names = make_glm_names();
  names[NormSlot::kQuery] = names[NormSlot::kKey] = "";
  return names;
}

constexpr TensorNames make_exaone_names() {
  TensorNames names = make_glm_names();
  names[ParameterSlot::kRouterCorrection] = "mlp.e_score_correction_bias";
  return names;
}

void set_mixture(const ConfigReader& config, DecoderConfig& decoder, const MixtureDefaults& experts, int64_t shared_experts,
                 const GroupedRouterDefaults& router) {
  read_experts(config, decoder, experts);
  read_shared_experts(config, decoder, shared_experts);
  read_grouped_router(config, decoder, router);
}

}  // namespace

constexpr TensorNames kGlm4MoeNames = make_glm_names();
constexpr TensorNames kSolarOpenNames = make_solar_names();
constexpr TensorNames kExaoneMoeNames = make_exaone_names();

void configure_glm4_moe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("attention_bias", false);
  if (!config.flag_or("use_qk_norm", false)) decoder.names[NormSlot::kQuery] = decoder.names[NormSlot::kKey] = "";
  set_mixture(config, decoder, {.experts = 128, .experts_per_token = 8, .intermediate_size = 1408}, 1, {});
  set_mixture_layers(decoder, config.integer_or("first_k_dense_replace", 1));
}

void configure_solar_open(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("attention_bias", false);
  set_mixture(config, decoder, {.experts = 128, .experts_per_token = 8, .intermediate_size = 1280}, 1, {});
  set_mixture_layers(decoder, 0);
}

void configure_dots1(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  const int64_t first = config.integer_or("max_window_layers", 62);
  set_layer_types(config, decoder, read_window(config, 4096), [first](int64_t layer) { return layer >= first; });
  set_mixture(config, decoder, {.intermediate_size = 1408}, 0, {.normalize = false});
  set_mixture_layers(decoder, config.integer_or("first_k_dense_replace", 0));
}

void configure_exaone_moe(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 4096);
  // The pattern may be spelled "LLLG"; then layer_types is there too.
  const int64_t pattern = window == 0 || config.has("layer_types") ? 1 : config.size_or("sliding_window_pattern", 4);
  set_layer_types(config, decoder, window, sliding_except_every(pattern));
  for (LayerConfig& layer : decoder.layers) {
    if (window > 0 && layer.sliding_window == 0) layer.rope = -1;
  }
  set_mixture(config, decoder, {.experts = 64, .experts_per_token = 8, .intermediate_size = 1024}, 1, {.scaling_factor = 2.5});
  set_mlp_layer_types(config, decoder, config.integer_or("first_k_dense_replace", 1));
}

}  // namespace salient::models
