// gpt-oss: sinks in the attention, windows in every other layer, experts with biases in tensors for all of them. Its published
// weights are MXFP4, which is refused where they are loaded; transformers writes them in bfloat16.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_gpt_oss_names() {
  TensorNames names = mixture_names();
  names[LinearSlot::kRouter] = "mlp.router";
  names[ParameterSlot::kSinks] = "self_attn.sinks";
  names.fused_gate_up = "mlp.experts.gate_up_proj";
  names.fused_down = "mlp.experts.down_proj";
  names.fused_gate_up_bias = "mlp.experts.gate_up_proj_bias";
  names.fused_down_bias = "mlp.experts.down_proj_bias";
  return names;
}

}  // namespace

constexpr TensorNames kGptOssNames = make_gpt_oss_names();

void configure_gpt_oss(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", true);
  set_layer_types(config, decoder, read_window(config, 128), [](int64_t layer) { return layer % 2 == 0; });
  if (!config.has("rope_scaling") && !config.has("rope_parameters")) {
    const Json yarn = {{"rope_type", "yarn"}, {"factor", 32.0}, {"truncate", false}, {"original_max_position_embeddings", 4096}};
    decoder.ropes.at(0) = parse_rope_object(ConfigReader(yarn, config.where()), config,
                                            {.theta = 150000.0, .head_dim = decoder.head_dim}, decoder.max_position_embeddings);
  }

  MoeConfig& moe = decoder.moe;
  read_experts(config, decoder, {.experts = 128, .experts_per_token = 4});
  moe.score = RouterScore::kSoftmaxOfChosen;
  moe.router_bias = true;
  moe.expert_bias = true;
  moe.fused_transposed = true;
  moe.fused_interleaved = true;
  moe.swiglu_limit = config.positive_or("swiglu_limit", 7.0);
  moe.swiglu_alpha = config.positive_or("swiglu_alpha", 1.702);
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
