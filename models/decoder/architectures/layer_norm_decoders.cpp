// Decoders with layer norms in Llama's layout: StarCoder2, StableLM, Nemotron.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_starcoder2_names() {
  TensorNames names = without_gate(llama_names());
  names[LinearSlot::kUpProj] = "c_fc";
  names[LinearSlot::kDownProj] = "c_proj";
  names[ParameterSlot::kActivationScales] = "mlp.act.scales";
  return names;
}

void set_layer_norm(DecoderConfig& decoder) {
  decoder.norm_kind = NormKind::kLayer;
  decoder.norm_bias = true;
}

}  // namespace

constexpr TensorNames kStarcoder2Names = make_starcoder2_names();
constexpr TensorNames kStableLmNames =
    with_head_norms(llama_names(), "self_attn.q_layernorm.norms.{}", "self_attn.k_layernorm.norms.{}");
constexpr TensorNames kNemotronNames = without_gate(llama_names());

void configure_starcoder2(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_norm(decoder);
  set_plain_mlp(decoder);
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = config.flag_or("use_bias", true);
  const int64_t window = read_window(config, 0);
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;
}

void configure_stablelm(const ConfigReader& config, DecoderConfig& decoder) {
  set_layer_norm(decoder);
  decoder.qkv_bias = config.flag_or("use_qkv_bias", false);
  decoder.head_norm = HeadNorm::kOwnWeights;
  decoder.head_norm_kind = NormKind::kLayer;
  if (!config.flag_or("qk_layernorm", false)) decoder.names[NormSlot::kQuery] = decoder.names[NormSlot::kKey] = "";
  decoder.parallel_residual = config.flag_or("use_parallel_residual", false);
  if (decoder.parallel_residual) decoder.names[NormSlot::kMlpInput] = "";  // one norm for both halves
}

void configure_nemotron(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.norm_kind = NormKind::kLayerOnePlus;
  decoder.norm_bias = true;
  decoder.gated_mlp = false;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.mlp_bias = config.flag_or("mlp_bias", false);
}

}  // namespace salient::models
