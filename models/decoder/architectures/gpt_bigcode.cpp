// GPT-BigCode (SantaCoder, StarCoder): GPT-2 with multi-query attention and linears that are not transposed.
#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_gpt_bigcode_names() {
  TensorNames names;
  names.block_prefix = "transformer.h.";
  names.embedding = "transformer.wte.weight";
  names.position_embedding = "transformer.wpe.weight";
  names.final_norm = "transformer.ln_f";
  names[LinearSlot::kQkvProj] = "attn.c_attn";
  names[LinearSlot::kOProj] = "attn.c_proj";
  names[LinearSlot::kUpProj] = "c_fc";
  names[LinearSlot::kDownProj] = "c_proj";
  names[NormSlot::kAttentionInput] = "ln_1";
  names[NormSlot::kMlpInput] = "ln_2";
  names[ParameterSlot::kActivationScales] = "mlp.act.scales";
  return names;
}

}  // namespace

constexpr TensorNames kGptBigcodeNames = make_gpt_bigcode_names();

void configure_gpt_bigcode(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("add_cross_attention", false, "cross-attention is not built");
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  set_learned_positions(decoder, 0);
  // Whatever num_key_value_heads says.
  decoder.num_key_value_heads = config.flag_or("multi_query", true) ? 1 : decoder.num_attention_heads;
  decoder.qkv_groups = decoder.num_key_value_heads;
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = true;
  if (!config.flag_or("scale_attn_weights", true)) decoder.attention_scale = 1.0;
}

}  // namespace salient::models
