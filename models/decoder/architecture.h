// Architectures as data: one table row says which tensors a block has and what they are called. Loading, scaling groups, export and
// tests all walk this table; there is no class per model.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/decoder_config.h"

namespace salient::models {

// The linears of a block.
enum class LinearSlot : uint8_t { kQProj, kKProj, kVProj, kOProj, kGateProj, kUpProj, kDownProj };
inline constexpr size_t kLinearSlots = 7;

// The norms of a block. Optional ones are undefined tensors where an architecture lacks them.
enum class NormSlot : uint8_t { kInput, kPostAttention, kQuery, kKey };
inline constexpr size_t kNormSlots = 4;

// The distinct inputs of linears: what calibration keeps statistics of.
enum class InputSlot : uint8_t { kAttentionInput, kAttentionOutput, kMlpInput, kMlpHidden };
inline constexpr size_t kInputSlots = 4;

struct Architecture {
  std::string_view model_type;
  std::string_view block_prefix;  // "model.layers."; followed by the index and a dot
  std::string_view embedding;     // "model.embed_tokens.weight"
  std::string_view final_norm;
  std::string_view lm_head;                            // absent in a tied checkpoint
  std::array<std::string_view, kLinearSlots> linears;  // module names inside the block: "self_attn.q_proj"
  std::array<std::string_view, kNormSlots> norms;      // tensor names inside the block; "" = not there
};

// Every supported row. Errors of find_architecture: unsupported, with the list.
std::span<const Architecture> architectures();
const Architecture& find_architecture(std::string_view model_type);

// "model.layers.3.self_attn.q_proj" (module), without ".weight".
std::string linear_name(const Architecture& architecture, int64_t block, LinearSlot slot);
// "model.layers.3.input_layernorm.weight" (tensor); "" where the architecture has no such norm.
std::string norm_name(const Architecture& architecture, int64_t block, NormSlot slot);

InputSlot input_of(LinearSlot slot);
// [out_features, in_features] of a linear.
std::array<int64_t, 2> linear_shape(const DecoderConfig& config, LinearSlot slot);
bool linear_has_bias(const DecoderConfig& config, LinearSlot slot);

}  // namespace salient::models
