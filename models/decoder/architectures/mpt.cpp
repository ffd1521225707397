// MPT (MosaicML).
#include "common/error.h"
#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_mpt_names() {
  TensorNames names;
  names.block_prefix = "transformer.blocks.";
  names.embedding = "transformer.wte.weight";
  names.final_norm = "transformer.norm_f";
  names.mlp = "ffn.";
  names[LinearSlot::kQkvProj] = "attn.Wqkv";
  names[LinearSlot::kOProj] = "attn.out_proj";
  names[LinearSlot::kUpProj] = "up_proj";
  names[LinearSlot::kDownProj] = "down_proj";
  names[NormSlot::kAttentionInput] = "norm_1";
  names[NormSlot::kMlpInput] = "norm_2";
  names[ParameterSlot::kActivationScales] = "ffn.act.scales";
  return names;
}

void configure_attention(const ConfigReader& attention, DecoderConfig& decoder) {
  attention.require_flag("alibi", true, "of MPT's position encodings only ALiBi is built");
  attention.require_flag("qk_ln", false, "norms of queries and keys are not built for MPT");
  attention.require_flag("prefix_lm", false, "attention to a whole prefix is not built");
  if (const std::string type = attention.text_or("attn_type", "multihead_attention"); type != "multihead_attention") {
    fail(ErrorKind::kUnsupported, "{}: key 'attn_type': '{}' is not supported, only 'multihead_attention'", attention.where(),
         type);
  }
  decoder.alibi_max_bias = attention.positive_or("alibi_bias_max", 8.0);
  decoder.attention_scale = attention.positive_or("softmax_scale", 0.0);
  // 0 is none, as in transformers.
  if (attention.number_or("clip_qkv", 0.0) != 0.0) decoder.qkv_clip = attention.positive("clip_qkv");
}

}  // namespace

constexpr TensorNames kMptNames = make_mpt_names();

void configure_mpt(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("no_bias", true, "biases are not built for MPT");
  if (const Json* scale = config.find("logit_scale")) {
    fail(ErrorKind::kUnsupported, "{}: key 'logit_scale': {} is not supported, only null", config.where(), dump_json(*scale));
  }
  if (const std::string norm = config.text_or("norm_type", "low_precision_layernorm");
      norm.find("layernorm") == std::string::npos) {
    fail(ErrorKind::kUnsupported, "{}: key 'norm_type': '{}' is not supported, only 'layernorm' and 'low_precision_layernorm'",
         config.where(), norm);
  }
  decoder.hidden_act = "gelu";                          // no key for it
  decoder.intermediate_size = 4 * decoder.hidden_size;  // whatever expansion_ratio says, as transformers does
  set_layer_norms(decoder, /*bias=*/false);
  set_plain_mlp(decoder);
  set_position_kind(decoder, PositionKind::kAlibi);
  const Json none = Json::object();
  const Json* attention = config.find("attn_config");
  configure_attention(ConfigReader(attention != nullptr ? *attention : none, config.where() + ": attn_config"), decoder);
}

}  // namespace salient::models
