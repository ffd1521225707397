// What a block of this configuration has, by slot: decides which lines its TorchScript gets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "models/decoder/block_layout.h"

namespace salient::models {

struct BlockParts {
  const DecoderConfig& config;
  BlockLayout layout;

  BlockParts(const DecoderConfig& of, int64_t block) : config(of), layout(block_layout(of, block)) {}

  const LayerConfig& layer() const { return config.layers[static_cast<size_t>(layout.block)]; }
  const RopeConfig* rope() const { return layer().rope < 0 ? nullptr : &config.ropes[static_cast<size_t>(layer().rope)]; }
  // The layer's queries grow with their position.
  bool grows() const {
    return config.query_growth.beta != 0.0 && layer().attention == AttentionKind::kStandard &&
           (layer().rope < 0 || !config.query_growth.unrotated_layers_only);
  }
  bool has(LinearSlot slot) const {
    return std::any_of(layout.linears.begin(), layout.linears.end(), [&](const LinearSpec& spec) {
      return spec.id == LinearId{slot, kDenseMlp};
    });
  }
  bool has(NormSlot slot) const {
    return std::any_of(layout.norms.begin(), layout.norms.end(), [&](const NormSpec& spec) { return spec.slot == slot; });
  }
  bool has(ParameterSlot slot) const {
    return std::any_of(layout.parameters.begin(), layout.parameters.end(),
                       [&](const ParameterSpec& spec) { return spec.slot == slot; });
  }
};

// Whether attention's logits must be in the open, for what libtorch's operator does not have.
inline bool attends_explicitly(const DecoderConfig& config) {
  return config.attention_softcap > 0.0 || !config.names[ParameterSlot::kSinks].empty();
}

}  // namespace salient::models
