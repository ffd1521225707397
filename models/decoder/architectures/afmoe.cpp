// Arcee's AFMoE (Trinity): gated attention, norms before and after both halves, rotation only where attention slides.
#include <cmath>

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_afmoe_names() {
  TensorNames names = with_head_norms(mixture_names());
  names[LinearSlot::kOutputGate] = "self_attn.gate_proj";
  names[LinearSlot::kRouter] = "mlp.router.gate";
  names[NormSlot::kAttentionOutput] = "post_attention_layernorm";
  names[NormSlot::kMlpInput] = "pre_mlp_layernorm";
  names[NormSlot::kMlpOutput] = "post_mlp_layernorm";
  names[ParameterSlot::kRouterCorrection] = "mlp.expert_bias";
  names.shared_expert = "mlp.shared_experts.";
  return names;
}

}  // namespace

constexpr TensorNames kAfmoeNames = make_afmoe_names();

void configure_afmoe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  set_layer_types(config, decoder, read_window(config, 1024),
                  sliding_except_every(config.size_or("global_attn_every_n_layers", 4)));
  for (LayerConfig& layer : decoder.layers) {
    if (layer.sliding_window == 0) layer.rope = -1;
  }
  if (config.flag_or("mup_enabled", false)) decoder.embedding_multiplier = std::sqrt(static_cast<double>(decoder.hidden_size));

  if (const std::string score = config.text_or("score_func", "sigmoid"); score != "sigmoid")
    fail(ErrorKind::kUnsupported, "{}: score_func '{}' is not supported, only 'sigmoid'", config.where(), score);
  config.require_flag("route_norm", true, "transformers always divides the chosen scores by their sum");
  MoeConfig& moe = decoder.moe;
  read_experts(config, decoder, {.experts = 64, .experts_per_token = 6, .intermediate_size = 1408});
  read_shared_experts(config, decoder, 2);
  moe.score = RouterScore::kSigmoid;
  moe.normalize = true;
  moe.normalize_epsilon = 1e-20;
  moe.scaling_factor = config.number_or("route_scale", 1.0);
  set_mixture_layers(decoder, config.integer_or("num_dense_layers", 1));
}

}  // namespace salient::models
