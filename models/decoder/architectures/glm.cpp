// GLM-4 (0414 and before): fused gate and up, half of each head rotated; the later ones with norms around both halves of a block.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_glm4_names() {
  TensorNames names = with_fused_gate_up(llama_names());
  names[NormSlot::kAttentionOutput] = "post_self_attn_layernorm";
  names[NormSlot::kMlpOutput] = "post_mlp_layernorm";
  return names;
}

}  // namespace

constexpr TensorNames kGlmNames = with_fused_gate_up(llama_names());
constexpr TensorNames kGlm4Names = make_glm4_names();

void configure_glm(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("attention_bias", true);
}

}  // namespace salient::models
