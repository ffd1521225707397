// Phi 1, 1.5 and 2: one norm for attention and MLP.
#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_phi_names() {
  TensorNames names;
  names.final_norm = "model.final_layernorm";
  names[LinearSlot::kQProj] = "self_attn.q_proj";
  names[LinearSlot::kKProj] = "self_attn.k_proj";
  names[LinearSlot::kVProj] = "self_attn.v_proj";
  names[LinearSlot::kOProj] = "self_attn.dense";
  names[LinearSlot::kUpProj] = "fc1";
  names[LinearSlot::kDownProj] = "fc2";
  names[NormSlot::kAttentionInput] = "input_layernorm";
  names[NormSlot::kQuery] = "self_attn.q_layernorm";
  names[NormSlot::kKey] = "self_attn.k_layernorm";
  return names;
}

}  // namespace

constexpr TensorNames kPhiNames = make_phi_names();

void configure_phi(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  decoder.parallel_residual = true;
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = decoder.lm_head_bias = true;
  decoder.head_norm_kind = NormKind::kLayer;
  decoder.head_norm_bias = true;
  if (!config.flag_or("qk_layernorm", false)) {
    decoder.names[NormSlot::kQuery] = "";
    decoder.names[NormSlot::kKey] = "";
  }
}

}  // namespace salient::models
