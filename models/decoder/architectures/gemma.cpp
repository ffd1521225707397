// Gemma 1, 2 and 3 (text): embeddings scaled by sqrt(hidden_size), norms that store w - 1; from Gemma 2 on norms around both halves
// of a block and sliding windows in most layers.
#include <cmath>

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_ropes.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_sandwich_names() {
  TensorNames names = llama_names();
  names[NormSlot::kAttentionOutput] = "post_attention_layernorm";
  names[NormSlot::kMlpInput] = "pre_feedforward_layernorm";
  names[NormSlot::kMlpOutput] = "post_feedforward_layernorm";
  return names;
}

constexpr std::string_view kTanhGelu = "gelu_pytorch_tanh";
constexpr double kQueryScalar = 256.0;
constexpr int64_t kWindow = 4096;
constexpr double kGlobalTheta = 1e6;
constexpr double kLocalTheta = 1e4;

void set_gemma_common(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("use_bidirectional_attention", false, "a decoder's tokens do not see those after them");
  decoder.norm_kind = decoder.head_norm_kind = NormKind::kRmsOnePlus;
  decoder.embedding_multiplier = std::sqrt(static_cast<double>(decoder.hidden_size));
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
}

// Null switches capping off.
double read_cap(const ConfigReader& config, std::string_view key, double fallback) {
  const bool given_as_null = config.object().contains(key) && !config.has(key);
  return given_as_null ? 0.0 : config.has(key) ? config.positive(key) : fallback;
}

void set_gemma2_common(const ConfigReader& config, DecoderConfig& decoder, double attention_cap, double logit_cap) {
  set_gemma_common(config, decoder);
  decoder.hidden_act = config.text_or("hidden_activation", kTanhGelu);  // hidden_act is there, too, and not used
  decoder.attention_scale = 1.0 / std::sqrt(config.positive_or("query_pre_attn_scalar", kQueryScalar));
  decoder.attention_softcap = read_cap(config, "attn_logit_softcapping", attention_cap);
  decoder.logit_softcap = read_cap(config, "final_logit_softcapping", logit_cap);
}

}  // namespace

constexpr TensorNames kGemmaNames = llama_names();
constexpr TensorNames kGemma2Names = make_sandwich_names();
constexpr TensorNames kGemma3Names = with_head_norms(make_sandwich_names());

void configure_gemma(const ConfigReader& config, DecoderConfig& decoder) {
  set_gemma_common(config, decoder);
  // The first published files say "gelu" and mean its tanh approximation.
  decoder.hidden_act = config.text_or(config.spelling({"hidden_activation", "hidden_act"}), kTanhGelu);
  if (decoder.hidden_act == "gelu") decoder.hidden_act = kTanhGelu;
}

void configure_gemma2(const ConfigReader& config, DecoderConfig& decoder) {
  set_gemma2_common(config, decoder, 50.0, 30.0);
  set_layer_types(config, decoder, read_window(config, kWindow), sliding_except_every(2));
}

void configure_gemma3(const ConfigReader& config, DecoderConfig& decoder) {
  set_gemma2_common(config, decoder, 0.0, 0.0);
  decoder.attention_softcap = 0.0;  // whatever config.json says, as in transformers: norms of queries and keys took its place
  const int64_t pattern = config.size_or(config.spelling({"sliding_window_pattern", "_sliding_window_pattern"}), 6);
  set_layer_types(config, decoder, read_window(config, kWindow), sliding_except_every(pattern));
  const RopeDefaults full{.theta = kGlobalTheta, .head_dim = decoder.head_dim};
  const RopeDefaults sliding{.theta = kLocalTheta, .head_dim = decoder.head_dim};
  set_ropes_by_layer_type(config, decoder, full, sliding, "rope_local_base_freq");
}

}  // namespace salient::models
