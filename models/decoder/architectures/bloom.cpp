// BLOOM, and Falcon, whose modules are named after BLOOM's.
#include <cmath>

#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_bloom_names() {
  TensorNames names;
  names.block_prefix = "transformer.h.";
  names.embedding = "transformer.word_embeddings.weight";
  names.embedding_norm = "transformer.word_embeddings_layernorm";
  names.final_norm = "transformer.ln_f";
  names[LinearSlot::kQkvProj] = "self_attention.query_key_value";
  names[LinearSlot::kOProj] = "self_attention.dense";
  names[LinearSlot::kUpProj] = "dense_h_to_4h";
  names[LinearSlot::kDownProj] = "dense_4h_to_h";
  names[NormSlot::kAttentionInput] = "input_layernorm";
  names[NormSlot::kMlpInput] = "post_attention_layernorm";
  names[ParameterSlot::kActivationScales] = "mlp.gelu_impl.scales";
  return names;
}

constexpr TensorNames make_falcon_names() {
  TensorNames names = make_bloom_names();
  names.embedding_norm = "";
  names[ParameterSlot::kActivationScales] = "mlp.act.scales";
  return names;
}

// Falcon 40B and later: groups of query heads with their key and value head; usually a norm for each branch.
void set_new_falcon_decoder(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("parallel_attn", true, "the new decoder architecture has a parallel residual");
  decoder.num_key_value_heads = config.size_or("num_kv_heads", decoder.num_attention_heads);
  decoder.parallel_residual = true;
  if (config.integer_or("num_ln_in_parallel_attn", 2) == 2) {
    decoder.names[NormSlot::kAttentionInput] = "ln_attn";
    decoder.names[NormSlot::kMlpInput] = "ln_mlp";
  } else {
    decoder.names[NormSlot::kMlpInput] = "";
  }
}

// Falcon 7B and the RefinedWeb models.
void set_old_falcon_decoder(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.num_key_value_heads = config.flag_or("multi_query", true) ? 1 : decoder.num_attention_heads;
  decoder.parallel_residual = config.flag_or("parallel_attn", true);
  if (decoder.parallel_residual) decoder.names[NormSlot::kMlpInput] = "";
}

}  // namespace

constexpr TensorNames kBloomNames = make_bloom_names();
constexpr TensorNames kFalconNames = make_falcon_names();

void configure_bloom(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.hidden_act = "gelu_pytorch_tanh";  // no key for it
  decoder.intermediate_size = 4 * decoder.hidden_size;
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  set_position_kind(decoder, PositionKind::kAlibi);
  decoder.qkv_groups = decoder.num_attention_heads;
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = true;
  decoder.residual_from_norm = config.flag_or("apply_residual_connection_post_layernorm", false);
}

void configure_falcon(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.hidden_act = config.text_or("activation", "gelu");
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  if (config.flag_or("new_decoder_architecture", false)) {
    set_new_falcon_decoder(config, decoder);
  } else {
    set_old_falcon_decoder(config, decoder);
  }
  decoder.qkv_groups = decoder.num_key_value_heads;
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = config.flag_or("bias", false);
  if (config.flag_or("alibi", false)) {
    set_position_kind(decoder, PositionKind::kAlibi);
    decoder.alibi_bfloat16 = true;
    decoder.alibi_multiplier = 1.0 / std::sqrt(static_cast<double>(decoder.head_dim));
  }
}

}  // namespace salient::models
