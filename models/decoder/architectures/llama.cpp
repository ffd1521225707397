// Llama and the architectures that differ from it in biases, windows and head norms only.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr int64_t kQwenWindow = 4096;
constexpr int64_t kQwenMaxWindowLayers = 28;

void set_qwen_windows(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = config.flag_or("use_sliding_window", false) ? read_window(config, kQwenWindow) : 0;
  const int64_t first = config.integer_or("max_window_layers", kQwenMaxWindowLayers);
  set_layer_types(config, decoder, window, [first](int64_t layer) { return layer >= first; });
}

}  // namespace

constexpr TensorNames kLlamaNames = llama_names();
constexpr TensorNames kQwen3Names = with_head_norms(llama_names());

void configure_llama(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.mlp_bias = config.flag_or("mlp_bias", false);
}

void configure_mistral(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 4096);
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;
}

void configure_qwen2(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = true;  // whatever config.json says
  set_qwen_windows(config, decoder);
}

void configure_qwen3(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  set_qwen_windows(config, decoder);
}

}  // namespace salient::models
