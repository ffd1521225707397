// Qwen's mixtures (1.5, 2 and 3) and OLMoE.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_qwen2_moe_names() {
  TensorNames names = mixture_names();
  names[LinearSlot::kSharedExpertGate] = "mlp.shared_expert_gate";
  names.shared_expert = "mlp.shared_expert.";
  return names;
}

constexpr int64_t kQwenWindow = 4096;

}  // namespace

constexpr TensorNames kQwen2MoeNames = make_qwen2_moe_names();
constexpr TensorNames kQwen3MoeNames = with_head_norms(mixture_names());

void configure_qwen2_moe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = config.flag_or("qkv_bias", true);
  const int64_t window = config.flag_or("use_sliding_window", false) ? read_window(config, kQwenWindow) : 0;
  const int64_t last = config.integer_or("max_window_layers", 28);
  set_layer_types(config, decoder, window, [last](int64_t layer) { return layer % 2 == 0 && layer < last; });

  if (config.integer_or("num_experts", 60) == 0) return;
  read_experts(config, decoder, {.experts = 60, .experts_per_token = 4, .intermediate_size = 1408});
  decoder.moe.shared_intermediate_size = config.size_or("shared_expert_intermediate_size", 5632);
  decoder.moe.normalize = config.flag_or("norm_topk_prob", false);
  set_sparse_step_layers(config, decoder);
}

void configure_qwen3_moe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  const int64_t window = config.flag_or("use_sliding_window", false) ? read_window(config, kQwenWindow) : 0;
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;

  if (config.integer_or("num_experts", 128) == 0) return;
  read_experts(config, decoder, {.experts = 128, .experts_per_token = 8, .intermediate_size = 768});
  decoder.moe.normalize = config.flag_or("norm_topk_prob", false);
  set_sparse_step_layers(config, decoder);
}

void configure_olmoe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.head_norm = HeadNorm::kWholeWidth;
  decoder.qkv_clip = config.positive_or("clip_qkv", 0.0);
  read_experts(config, decoder, {.experts = 64, .experts_per_token = 8});
  decoder.moe.normalize = config.flag_or("norm_topk_prob", false);
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
