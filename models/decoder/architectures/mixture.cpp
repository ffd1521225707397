#include "models/decoder/architectures/mixture.h"

#include <algorithm>

#include "common/error.h"

namespace salient::models {

void read_experts(const ConfigReader& config, DecoderConfig& decoder, const MixtureDefaults& defaults) {
  const auto read = [&](std::initializer_list<std::string_view> keys, int64_t fallback) {
    const std::string_view key = config.spelling(keys);
    return fallback == 0 ? config.size(key) : config.size_or(key, fallback);
  };
  MoeConfig& moe = decoder.moe;
  const std::string_view count = config.spelling({"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"});
  const std::string_view chosen = config.spelling({"num_experts_per_tok", "moe_k", "moe_topk"});
  moe.num_experts = read({count}, defaults.experts);
  moe.experts_per_token = read({chosen}, defaults.experts_per_token);
  moe.intermediate_size =
      defaults.intermediate_size == 0 ? decoder.intermediate_size : read({"moe_intermediate_size"}, defaults.intermediate_size);
  if (moe.experts_per_token > moe.num_experts) {
    fail(ErrorKind::kCorruption, "{}: {} {} is more than the {} of {}", config.where(), chosen, moe.experts_per_token,
         moe.num_experts, count);
  }
}

void read_shared_experts(const ConfigReader& config, DecoderConfig& decoder, int64_t fallback) {
  int64_t count = fallback;
  for (const std::string_view key : {"n_shared_experts", "num_shared_experts", "moe_num_shared_experts"}) {
    if (config.object().contains(key)) count = config.integer_or(key, 0);  // null: none
  }
  if (count < 0 || count > kMostParts)
    fail(ErrorKind::kCorruption, "{}: {} shared experts, expected 0 to {}", config.where(), count, kMostParts);
  decoder.moe.shared_intermediate_size = count * decoder.moe.intermediate_size;
  if (count == 0) decoder.names.shared_expert = "";
}

void set_mixture_layers(DecoderConfig& decoder, int64_t first) {
  for (size_t layer = 0; layer < decoder.layers.size(); ++layer) decoder.layers[layer].moe = static_cast<int64_t>(layer) >= first;
}

void set_sparse_step_layers(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t step = config.size_or("decoder_sparse_step", 1);
  const std::vector<int64_t> dense = config.integers_or_empty("mlp_only_layers");
  for (size_t layer = 0; layer < decoder.layers.size(); ++layer) {
    const auto index = static_cast<int64_t>(layer);
    decoder.layers[layer].moe = (index + 1) % step == 0 && std::find(dense.begin(), dense.end(), index) == dense.end();
  }
}

void set_mlp_layer_types(const ConfigReader& config, DecoderConfig& decoder, int64_t first) {
  const std::vector<std::string> types = config.texts_or_empty("mlp_layer_types");
  if (types.empty()) return set_mixture_layers(decoder, first);
  if (types.size() != decoder.layers.size()) {
    fail(ErrorKind::kCorruption, "{}: key 'mlp_layer_types' has {} entries, expected {}, one a layer", config.where(), types.size(),
         decoder.layers.size());
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] != "sparse" && types[layer] != "dense") {
      fail(ErrorKind::kUnsupported, "{}: mlp_layer_types[{}] is '{}', supported are 'sparse' and 'dense'", config.where(), layer,
           types[layer].substr(0, 60));
    }
    decoder.layers[layer].moe = types[layer] == "sparse";
  }
}

void read_grouped_router(const ConfigReader& config, DecoderConfig& decoder, const GroupedRouterDefaults& defaults) {
  MoeConfig& moe = decoder.moe;
  moe.score = RouterScore::kSigmoid;
  moe.normalize = config.flag_or("norm_topk_prob", defaults.normalize);
  moe.normalize_epsilon = 1e-20;
  moe.scaling_factor = config.number_or("routed_scaling_factor", defaults.scaling_factor);
  moe.group_score = GroupScore::kTopTwoSum;
  moe.groups = config.size_or("n_group", 1);
  moe.groups_per_token = config.size_or("topk_group", 1);
  const int64_t per_group = moe.num_experts % moe.groups == 0 ? moe.num_experts / moe.groups : 0;
  if (per_group < 2 || moe.groups_per_token > moe.groups || moe.groups_per_token * per_group < moe.experts_per_token) {
    fail(ErrorKind::kCorruption,
         "{}: {} experts in n_group {} groups, of which a token goes to {} experts in topk_group {} groups, do not work out: "
         "expected equal "
         "groups of two or more, and enough of them",
         config.where(), moe.num_experts, moe.groups, moe.experts_per_token, moe.groups_per_token);
  }
}

}  // namespace salient::models
