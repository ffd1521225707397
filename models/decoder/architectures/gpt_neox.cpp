// GPT-NeoX and GPT-J: attention and MLP both read the block's input.
#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_gpt_neox_names() {
  TensorNames names;
  names.block_prefix = "gpt_neox.layers.";
  names.embedding = "gpt_neox.embed_in.weight";
  names.final_norm = "gpt_neox.final_layer_norm";
  names.lm_head = "embed_out";
  names[LinearSlot::kQkvProj] = "attention.query_key_value";
  names[LinearSlot::kOProj] = "attention.dense";
  names[LinearSlot::kUpProj] = "dense_h_to_4h";
  names[LinearSlot::kDownProj] = "dense_4h_to_h";
  names[NormSlot::kAttentionInput] = "input_layernorm";
  names[NormSlot::kMlpInput] = "post_attention_layernorm";
  names[ParameterSlot::kActivationScales] = "mlp.act.scales";
  return names;
}

constexpr TensorNames make_gptj_names() {
  TensorNames names;
  names.block_prefix = "transformer.h.";
  names.embedding = "transformer.wte.weight";
  names.final_norm = "transformer.ln_f";
  names[LinearSlot::kQProj] = "attn.q_proj";
  names[LinearSlot::kKProj] = "attn.k_proj";
  names[LinearSlot::kVProj] = "attn.v_proj";
  names[LinearSlot::kOProj] = "attn.out_proj";
  names[LinearSlot::kUpProj] = "fc_in";
  names[LinearSlot::kDownProj] = "fc_out";
  names[NormSlot::kAttentionInput] = "ln_1";
  names[ParameterSlot::kActivationScales] = "mlp.act.scales";
  return names;
}

constexpr int64_t kGptjRotaryDim = 64;

}  // namespace

constexpr TensorNames kGptNeoxNames = make_gpt_neox_names();
constexpr TensorNames kGptjNames = make_gptj_names();

void configure_gpt_neox(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  decoder.qkv_groups = decoder.num_attention_heads;
  decoder.parallel_residual = config.flag_or("use_parallel_residual", true);
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", true);
  decoder.mlp_bias = true;
}

void configure_gptj(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  decoder.parallel_residual = true;
  decoder.mlp_bias = true;
  decoder.lm_head_bias = true;
  RopeConfig rope;
  rope.pairs = RopePairs::kNeighbours;
  rope.dim = rope.frequency_dim = config.size_or("rotary_dim", kGptjRotaryDim);
  decoder.ropes = {rope};
}

}  // namespace salient::models
