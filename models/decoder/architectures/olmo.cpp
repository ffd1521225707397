// OLMo: norms without parameters. OLMo 2 and 3, EXAONE 4: norms after attention and MLP instead of before, normalized queries and
// keys.
#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_ropes.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_post_norm_names() {
  TensorNames names = with_head_norms(llama_names());
  names[NormSlot::kAttentionInput] = names[NormSlot::kMlpInput] = "";
  names[NormSlot::kAttentionOutput] = "post_attention_layernorm";
  names[NormSlot::kMlpOutput] = "post_feedforward_layernorm";
  return names;
}

// EXAONE's "LLLG": local and global layers, repeated; the last layer is global.
std::function<bool(int64_t)> sliding_by_letters(const std::string& letters, int64_t layers) {
  return [letters, layers](int64_t layer) {
    return layer + 1 < layers && letters[static_cast<size_t>(layer) % letters.size()] == 'L';
  };
}

std::function<bool(int64_t)> exaone_pattern(const ConfigReader& config, int64_t layers) {
  const std::string_view key = "sliding_window_pattern";
  const Json* pattern = config.find(key);
  if (pattern == nullptr || !pattern->is_string()) return sliding_except_every(config.size_or(key, 4));
  const std::string letters = config.text_or(key, "");
  if (letters.empty() || letters.find_first_not_of("LG") != std::string::npos) {
    fail(ErrorKind::kCorruption, "{}: key '{}': found \"{}\", expected a number or letters L and G", config.where(), key,
         letters.substr(0, 60));
  }
  return sliding_by_letters(letters, layers);
}

}  // namespace

constexpr TensorNames kOlmoNames = llama_names();
constexpr TensorNames kPostNormNames = make_post_norm_names();

void configure_olmo(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.norm_kind = NormKind::kLayer;
  decoder.norm_affine = false;
  decoder.norm_eps = 1e-5;  // whatever config.json says
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.qkv_clip = config.has("clip_qkv") ? config.positive("clip_qkv") : 0.0;
}

void configure_olmo2(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.head_norm = HeadNorm::kWholeWidth;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
}

void configure_olmo3(const ConfigReader& config, DecoderConfig& decoder) {
  configure_olmo2(config, decoder);
  set_layer_types(config, decoder, read_window(config, 4096), sliding_except_every(4));
  const RopeDefaults rope{.theta = 500000.0, .head_dim = decoder.head_dim};
  set_ropes_by_layer_type(config, decoder, rope, rope, "rope_theta");
}

void configure_exaone4(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 4096);
  // Without a window the pattern means nothing, and published files have 0 or null there.
  set_layer_types(config, decoder, window,
                  window == 0 ? sliding_except_every(1) : exaone_pattern(config, decoder.num_hidden_layers));
  // Beside layers with a window, the others have no positions.
  for (LayerConfig& layer : decoder.layers) layer.rope = window == 0 || layer.sliding_window > 0 ? 0 : -1;
}

}  // namespace salient::models
