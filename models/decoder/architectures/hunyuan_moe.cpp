// Hunyuan's mixtures (A13B): a shared expert beside the routed ones, norms of queries and keys after the rotation.
#include <algorithm>

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_hunyuan_moe_names() {
  TensorNames names = with_head_norms(mixture_names(), "self_attn.query_layernorm", "self_attn.key_layernorm");
  names[LinearSlot::kRouter] = "mlp.gate.wg";
  names.shared_expert = "mlp.shared_mlp.";
  return names;
}

// A number, or a list with one for each layer, which must all be the same.
int64_t same_for_layers(const ConfigReader& config, std::string_view key, int64_t fallback) {
  const std::vector<int64_t> values = config.integers_or_empty(key);
  if (values.empty()) return fallback;
  if (values.front() < 1 || values.front() > kMostSize)
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected 1 to {}", config.where(), key, values.front(), kMostSize);
  if (std::any_of(values.begin(), values.end(), [&](int64_t value) { return value != values.front(); })) {
    fail(ErrorKind::kUnsupported, "{}: key '{}' differs between layers, which is not supported", config.where(), key);
  }
  return values.front();
}

}  // namespace

constexpr TensorNames kHunyuanMoeNames = make_hunyuan_moe_names();

void configure_hunyuan_v1_moe(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);
  decoder.head_norm_after_rope = true;
  config.require_flag("use_qk_norm", true, "the names of this architecture have norms of queries and keys");
  config.require_flag("use_cla", false, "layers that share the keys and values of others are not built");

  MoeConfig& moe = decoder.moe;
  moe.num_experts = same_for_layers(config, "num_experts", 1);
  moe.experts_per_token = same_for_layers(config, config.spelling({"moe_topk", "num_experts_per_tok"}), 1);
  moe.intermediate_size = same_for_layers(config, "moe_intermediate_size", decoder.intermediate_size);
  moe.shared_intermediate_size = moe.intermediate_size * same_for_layers(config, "num_shared_expert", 1);
  moe.normalize = true;
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
