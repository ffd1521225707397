// Mixtral and the architectures that call their experts' linears w1 (gate), w3 (up) and w2 (down): Phi-3.5-MoE and MiniMax-M2.
#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_mixtral_names() {
  TensorNames names = mixture_names();
  names[LinearSlot::kRouter] = "block_sparse_moe.gate";
  names[LinearSlot::kGateProj] = "w1";
  names[LinearSlot::kUpProj] = "w3";
  names[LinearSlot::kDownProj] = "w2";
  names.mlp = "block_sparse_moe.";
  names.expert = "block_sparse_moe.experts.{}.";
  return names;
}

constexpr TensorNames make_minimax_names() {
  TensorNames names = with_head_norms(make_mixtral_names());
  names[ParameterSlot::kRouterCorrection] = "block_sparse_moe.e_score_correction_bias";
  return names;
}

void set_window(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 0);
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;
}

}  // namespace

constexpr TensorNames kMixtralNames = make_mixtral_names();
constexpr TensorNames kMinimaxM2Names = make_minimax_names();

void configure_mixtral(const ConfigReader& config, DecoderConfig& decoder) {
  set_window(config, decoder);
  read_experts(config, decoder, {.experts = 8, .experts_per_token = 2});
  decoder.moe.normalize = true;
  set_mixture_layers(decoder, 0);
}

void configure_phimoe(const ConfigReader& config, DecoderConfig& decoder) {
  set_window(config, decoder);
  decoder.norm_kind = NormKind::kLayer;
  decoder.norm_bias = true;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.lm_head_bias = config.flag_or("lm_head_bias", false);
  read_experts(config, decoder, {.experts = 16, .experts_per_token = 2});
  if (decoder.moe.experts_per_token != 2) {
    fail(ErrorKind::kUnsupported, "{}: num_experts_per_tok {} is not supported, only 2", config.where(),
         decoder.moe.experts_per_token);
  }
  decoder.moe.score = RouterScore::kSparseMixer;
  decoder.moe.router_jitter = config.number_or("router_jitter_noise", 0.01);
  set_mixture_layers(decoder, 0);

  // The magnitude of the rotation is given, one for short and one for long texts; in what is published both are the same.
  RopeConfig& rope = decoder.ropes.at(0);
  const Json* scaling = config.find(config.spelling({"rope_scaling", "rope_parameters"}));
  if (rope.kind == RopeKind::kDefault || scaling == nullptr) return;
  const ConfigReader parameters(*scaling, config.where() + ": rope_scaling");
  const double magnitude = parameters.positive("short_mscale");
  if (parameters.positive("long_mscale") != magnitude) {
    fail(ErrorKind::kUnsupported, "{}: a long_mscale that differs from short_mscale {} is not supported", parameters.where(),
         magnitude);
  }
  rope.attention_factor = magnitude;
}

void configure_minimax_m2(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("use_qk_norm", true, "the names of this architecture have norms of queries and keys");
  decoder.head_norm = HeadNorm::kWholeWidth;
  // Published files have rotary_dim in the place of partial_rotary_factor.
  const auto rotated = static_cast<double>(config.size_or("rotary_dim", decoder.head_dim));
  decoder.ropes.at(0) = parse_rope(
      config,
      {.theta = 5e6, .partial_rotary_factor = rotated / static_cast<double>(decoder.head_dim), .head_dim = decoder.head_dim},
      decoder.max_position_embeddings);
  read_experts(config, decoder, {.experts = 256, .experts_per_token = 8});
  if (config.integer_or("shared_intermediate_size", 0) != 0)
    fail(ErrorKind::kUnsupported, "{}: shared_intermediate_size: a shared expert is not supported for this model_type",
         config.where());
  decoder.moe.score = RouterScore::kSigmoid;
  decoder.moe.normalize = true;
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
