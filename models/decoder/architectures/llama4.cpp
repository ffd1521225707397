// Llama 4 (its language model): attention in chunks with rotation, every fourth layer without either; experts that take weighted
// inputs.
#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_llama4_names() {
  TensorNames names = with_head_norms(mixture_names(), "self_attn.qk_norm", "self_attn.qk_norm");  // without tensors
  names[LinearSlot::kRouter] = "feed_forward.router";
  names.mlp = "feed_forward.";
  names.shared_expert = "feed_forward.shared_expert.";
  names.expert = "feed_forward.experts.{}.";
  names.fused_gate_up = "feed_forward.experts.gate_up_proj";
  names.fused_down = "feed_forward.experts.down_proj";
  return names;
}

void set_layers(const ConfigReader& config, DecoderConfig& decoder) {
  // 1: with rotation. An empty list means that the interval says it.
  const std::vector<int64_t> rotated = config.integers_or_empty("no_rope_layers");
  const int64_t interval = config.size_or("no_rope_layer_interval", 4);
  const std::vector<std::string> types = config.texts_or_empty("layer_types");
  const bool no_chunks = config.object().contains("attention_chunk_size") && !config.has("attention_chunk_size");
  const int64_t chunk = no_chunks ? 0 : config.size_or("attention_chunk_size", 8192);
  if ((!rotated.empty() && rotated.size() < decoder.layers.size()) || (!types.empty() && types.size() != decoder.layers.size())) {
    fail(ErrorKind::kCorruption, "{}: no_rope_layers has {} entries and layer_types {}, expected {}, one a layer", config.where(),
         rotated.size(), types.size(), decoder.layers.size());
  }
  for (size_t layer = 0; layer < decoder.layers.size(); ++layer) {
    const bool turns = rotated.empty() ? (static_cast<int64_t>(layer) + 1) % interval != 0 : rotated[layer] != 0;
    if (!types.empty() && types[layer] != "chunked_attention" && types[layer] != "full_attention") {
      fail(ErrorKind::kUnsupported, "{}: layer_types[{}] is \"{}\", supported are \"chunked_attention\" and \"full_attention\"",
           config.where(), layer, types[layer].substr(0, 60));
    }
    decoder.layers[layer].rope = turns ? 0 : -1;
    decoder.layers[layer].attention_chunk = (types.empty() ? turns : types[layer] == "chunked_attention") ? chunk : 0;
  }
}

void set_mixture(const ConfigReader& config, DecoderConfig& decoder) {
  MoeConfig& moe = decoder.moe;
  read_experts(config, decoder, {.experts = 16, .experts_per_token = 1});
  moe.shared_intermediate_size = moe.intermediate_size;
  decoder.intermediate_size = config.size_or("intermediate_size_mlp", 16384);
  moe.score = RouterScore::kSigmoid;
  moe.weight_input = true;
  moe.fused_transposed = true;
  const std::vector<int64_t> listed = config.integers_or_empty("moe_layers");
  if (!config.has("moe_layers")) {
    const int64_t step = config.size_or("interleave_moe_layer_step", 1);
    for (size_t layer = 0; layer < decoder.layers.size(); ++layer)
      decoder.layers[layer].moe = (static_cast<int64_t>(layer) + 1) % step == 0;
  }
  for (const int64_t layer : listed) {
    if (layer < 0 || layer >= decoder.num_hidden_layers)
      fail(ErrorKind::kCorruption, "{}: moe_layers holds {}, expected 0 to {}", config.where(), layer,
           decoder.num_hidden_layers - 1);
    decoder.layers[static_cast<size_t>(layer)].moe = true;
  }
}

}  // namespace

constexpr TensorNames kLlama4Names = make_llama4_names();

void configure_llama4(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  set_layers(config, decoder);
  if (config.flag_or("use_qk_norm", true)) {
    decoder.head_norm_affine = false;
    decoder.head_norm_after_rope = true;
    decoder.head_norm_rotated_layers_only = true;
  } else {
    decoder.names[NormSlot::kQuery] = decoder.names[NormSlot::kKey] = "";
  }
  if (config.flag_or("attn_temperature_tuning", true)) {
    decoder.query_growth.beta = config.number_or("attn_scale", 0.1);
    decoder.query_growth.period = config.size_or("floor_scale", 8192);
    decoder.query_growth.shift = 1;
    decoder.query_growth.unrotated_layers_only = true;
  }
  set_mixture(config, decoder);
}

}  // namespace salient::models
