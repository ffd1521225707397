// What families with mixtures of experts share: tensor names around Llama's attention, and the keys of config.json that say how
// many experts there are, how they are chosen and which layers have them.
#pragma once

#include <cstdint>

#include "models/decoder/architectures/llama_names.h"
#include "models/decoder/config_reader.h"
#include "models/decoder/decoder_config.h"

namespace salient::models {

// Llama's names, with a router and experts as Qwen calls them.
constexpr TensorNames mixture_names() {
  TensorNames names = llama_names();
  names[LinearSlot::kRouter] = "mlp.gate";
  names.expert = "mlp.experts.{}.";
  return names;
}

// What a configuration class assumes.
struct MixtureDefaults {
  int64_t experts = 0;            // 0: must be given
  int64_t experts_per_token = 0;  // 0: must be given
  int64_t intermediate_size = 0;  // of an expert; 0: the model's intermediate_size
};

// Number, choice and size of the routed experts, in the spellings of the families. Errors: corruption.
void read_experts(const ConfigReader& config, DecoderConfig& decoder, const MixtureDefaults& defaults);

// One shared expert as wide as so many routed ones ("n_shared_experts"); none clears its name. Errors: corruption (negative).
void read_shared_experts(const ConfigReader& config, DecoderConfig& decoder, int64_t fallback);

// Mixtures in every layer from `first`.
void set_mixture_layers(DecoderConfig& decoder, int64_t first);
// In every `decoder_sparse_step`-th layer, but those of `mlp_only_layers` (Qwen).
void set_sparse_step_layers(const ConfigReader& config, DecoderConfig& decoder);
// "mlp_layer_types": sparse or dense; without the key from layer `first`. Errors: corruption (another number of entries),
// unsupported.
void set_mlp_layer_types(const ConfigReader& config, DecoderConfig& decoder, int64_t first);

// The router of DeepSeek-V3 and those who took it over: sigmoid scores, a correction that only chooses, groups ranked by their two
// best
// ("n_group", "topk_group"), "norm_topk_prob" and "routed_scaling_factor".
struct GroupedRouterDefaults {
  bool normalize = true;
  double scaling_factor = 1.0;
};
// Errors: corruption (groups that do not work out).
void read_grouped_router(const ConfigReader& config, DecoderConfig& decoder, const GroupedRouterDefaults& defaults);

}  // namespace salient::models
