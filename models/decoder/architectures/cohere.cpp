// Cohere's Command R and Aya: one norm for attention and MLP, which run side by side; scaled logits. Command R7B and A: three
// layers with a sliding window to one without positions.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_cohere_names() {
  TensorNames names = with_head_norms(llama_names());
  names[NormSlot::kMlpInput] = "";
  return names;
}

void set_common(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.norm_kind = decoder.head_norm_kind = NormKind::kLayer;
  decoder.head_norm = HeadNorm::kOwnWeights;
  decoder.parallel_residual = true;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.logit_multiplier = config.positive_or("logit_scale", 0.0625);
}

}  // namespace

constexpr TensorNames kCohereNames = make_cohere_names();

void configure_cohere(const ConfigReader& config, DecoderConfig& decoder) {
  set_common(config, decoder);
  if (!config.flag_or("use_qk_norm", false)) decoder.names[NormSlot::kQuery] = decoder.names[NormSlot::kKey] = "";
}

void configure_cohere2(const ConfigReader& config, DecoderConfig& decoder) {
  set_common(config, decoder);
  decoder.names[NormSlot::kQuery] = decoder.names[NormSlot::kKey] = "";
  set_layer_types(config, decoder, read_window(config, 4096), sliding_except_every(config.size_or("sliding_window_pattern", 4)));
  for (LayerConfig& layer : decoder.layers) layer.rope = layer.sliding_window > 0 ? 0 : -1;
}

}  // namespace salient::models
