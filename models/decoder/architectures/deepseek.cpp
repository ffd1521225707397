// DeepSeek-V2 and V3 and GLM-4.7-Flash: multi-head latent attention, mixtures with shared experts, in part with experts in groups.
// Layers after the last one (prediction of further tokens) are left alone.
#include <cmath>

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

// What the configuration classes assume.
constexpr LatentAttentionConfig kDeepseekLatent = {
    .q_lora_rank = 1536, .kv_lora_rank = 512, .qk_nope_head_dim = 128, .qk_rope_head_dim = 64, .v_head_dim = 128};
constexpr LatentAttentionConfig kGlmLatent = {
    .q_lora_rank = 768, .kv_lora_rank = 512, .qk_nope_head_dim = 192, .qk_rope_head_dim = 64, .v_head_dim = 256};

constexpr TensorNames make_deepseek_names() {
  TensorNames names = mixture_names();
  names[LinearSlot::kKProj] = names[LinearSlot::kVProj] = "";
  names[LinearSlot::kQAProj] = "self_attn.q_a_proj";
  names[LinearSlot::kQBProj] = "self_attn.q_b_proj";
  names[LinearSlot::kKvAProj] = "self_attn.kv_a_proj_with_mqa";
  names[LinearSlot::kKvBProj] = "self_attn.kv_b_proj";
  names[NormSlot::kQueryLatent] = "self_attn.q_a_layernorm";
  names[NormSlot::kKvLatent] = "self_attn.kv_a_layernorm";
  names[ParameterSlot::kRouterCorrection] = "mlp.gate.e_score_correction_bias";
  names.shared_expert = "mlp.shared_experts.";
  return names;
}

void require_text(const ConfigReader& config, std::string_view key, std::string_view only) {
  const std::string found = config.text_or(key, only);
  if (found != only) fail(ErrorKind::kUnsupported, "{}: {} '{}' is not supported, only '{}'", config.where(), key, found, only);
}

// DeepSeek's softmax sharpens with the context that YaRN adds, by "mscale_all_dim".
double softmax_scale(const ConfigReader& config, const RopeConfig& rope, int64_t query_dim) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(query_dim));
  const Json* object = config.find("rope_scaling");
  if (object == nullptr) object = config.find("rope_parameters");
  if (rope.kind == RopeKind::kDefault || object == nullptr) return scale;
  const double mscale = ConfigReader(*object, config.where()).number_or("mscale_all_dim", 0.0);
  if (mscale == 0.0) return scale;
  const double magnitude = yarn_magnitude(rope.factor, mscale);
  return scale * magnitude * magnitude;
}

void set_attention(const ConfigReader& config, DecoderConfig& decoder, const LatentAttentionConfig& defaults, RopePairs pairs) {
  LatentAttentionConfig& latent = decoder.latent;
  // null says that queries have no latent; a missing key does not.
  const bool q_rank_is_null = config.object().contains("q_lora_rank") && !config.has("q_lora_rank");
  latent.q_lora_rank = q_rank_is_null ? 0 : config.size_or("q_lora_rank", defaults.q_lora_rank);
  latent.kv_lora_rank = config.size_or("kv_lora_rank", defaults.kv_lora_rank);
  latent.qk_nope_head_dim = config.size_or("qk_nope_head_dim", defaults.qk_nope_head_dim);
  latent.qk_rope_head_dim = config.size_or("qk_rope_head_dim", defaults.qk_rope_head_dim);
  latent.v_head_dim = config.size_or("v_head_dim", defaults.v_head_dim);
  if (latent.q_lora_rank == 0) {
    decoder.names[LinearSlot::kQAProj] = decoder.names[LinearSlot::kQBProj] = "";
    decoder.names[NormSlot::kQueryLatent] = "";
  } else {
    decoder.names[LinearSlot::kQProj] = "";
  }
  for (LayerConfig& layer : decoder.layers) layer.attention = AttentionKind::kLatent;
  decoder.num_key_value_heads = decoder.num_attention_heads;
  decoder.head_dim = latent.qk_nope_head_dim + latent.qk_rope_head_dim;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);  // of the down projections and o_proj

  const RopeConfig rope =
      parse_rope(config, {.theta = 10000.0, .partial_rotary_factor = 1.0, .pairs = pairs, .head_dim = latent.qk_rope_head_dim},
                 decoder.max_position_embeddings);
  if (rope.dim != latent.qk_rope_head_dim) {
    fail(ErrorKind::kUnsupported,
         "{}: {} of the {} channels of qk_rope_head_dim are rotated (partial_rotary_factor), supported are all", config.where(),
         rope.dim, latent.qk_rope_head_dim);
  }
  decoder.ropes = {rope};
  decoder.attention_scale = softmax_scale(config, rope, decoder.head_dim);
}

void require_every_layer(const ConfigReader& config) {
  if (const int64_t every = config.integer_or("moe_layer_freq", 1); every != 1)
    fail(ErrorKind::kUnsupported, "{}: moe_layer_freq {} is not supported, only 1", config.where(), every);
}

struct GroupDefaults {
  int64_t groups = 1;
  int64_t groups_per_token = 1;
};
void read_groups(const ConfigReader& config, MoeConfig& moe, GroupScore score, const GroupDefaults& defaults) {
  moe.group_score = score;
  moe.groups = config.size_or("n_group", defaults.groups);
  moe.groups_per_token = config.size_or("topk_group", defaults.groups_per_token);
  const int64_t per_group = moe.num_experts % moe.groups == 0 ? moe.num_experts / moe.groups : 0;
  const int64_t ranked_by = score == GroupScore::kTopTwoSum ? 2 : 1;
  if (per_group < ranked_by || moe.groups_per_token > moe.groups || moe.groups_per_token * per_group < moe.experts_per_token) {
    fail(ErrorKind::kCorruption,
         "{}: {} experts in n_group {} groups, of which a token goes to {} experts in topk_group {} groups, do not work out: "
         "expected equal "
         "groups of {} or more, and enough of them",
         config.where(), moe.num_experts, moe.groups, moe.experts_per_token, moe.groups_per_token, ranked_by);
  }
}

// Sigmoid scores, a learned correction that only chooses, groups ranked by their two best.
void read_v3_router(const ConfigReader& config, MoeConfig& moe, double scaling_factor, const GroupDefaults& groups) {
  require_text(config, "scoring_func", "sigmoid");
  require_text(config, "topk_method", "noaux_tc");
  moe.score = RouterScore::kSigmoid;
  moe.normalize = config.flag_or("norm_topk_prob", true);
  moe.normalize_epsilon = 1e-20;
  moe.scaling_factor = config.number_or("routed_scaling_factor", scaling_factor);
  read_groups(config, moe, GroupScore::kTopTwoSum, groups);
}

RopePairs pairs_of(const ConfigReader& config) {
  return config.flag_or("rope_interleave", true) ? RopePairs::kNeighbours : RopePairs::kHalves;
}

}  // namespace

constexpr TensorNames kDeepseekNames = make_deepseek_names();

void configure_deepseek_v2(const ConfigReader& config, DecoderConfig& decoder) {
  set_attention(config, decoder, kDeepseekLatent, RopePairs::kNeighbours);
  decoder.mlp_bias = config.flag_or("mlp_bias", false);  // not of routed experts
  read_experts(config, decoder, {.experts = 64, .intermediate_size = 1407});
  read_shared_experts(config, decoder, 2);
  require_every_layer(config);
  set_mixture_layers(decoder, config.integer_or("first_k_dense_replace", 0));
  decoder.names[ParameterSlot::kRouterCorrection] = "";

  MoeConfig& moe = decoder.moe;
  require_text(config, "scoring_func", "softmax");
  moe.score = RouterScore::kSoftmax;
  moe.normalize = false;  // transformers does not look at norm_topk_prob; it is false in every published V2
  moe.scaling_factor = config.number_or("routed_scaling_factor", 1.0);
  const std::string method = config.text_or("topk_method", "greedy");
  if (method == "greedy") return;
  require_text(config, "topk_method", "group_limited_greedy");
  read_groups(config, moe, GroupScore::kMax, {});
}

void configure_deepseek_v3(const ConfigReader& config, DecoderConfig& decoder) {
  set_attention(config, decoder, kDeepseekLatent, pairs_of(config));
  read_experts(config, decoder, {.experts = 256, .experts_per_token = 8, .intermediate_size = 2048});
  read_shared_experts(config, decoder, 1);
  require_every_layer(config);
  set_mixture_layers(decoder, config.integer_or("first_k_dense_replace", 3));
  read_v3_router(config, decoder.moe, 2.5, {.groups = 8, .groups_per_token = 4});
}

void configure_glm4_moe_lite(const ConfigReader& config, DecoderConfig& decoder) {
  set_attention(config, decoder, kGlmLatent, pairs_of(config));
  read_experts(config, decoder, {.experts = 64, .experts_per_token = 4, .intermediate_size = 1536});
  read_shared_experts(config, decoder, 1);
  set_mlp_layer_types(config, decoder, 1);
  read_v3_router(config, decoder.moe, 1.8, {});
}

}  // namespace salient::models
