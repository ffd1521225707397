#include "models/decoder/architecture.h"

#include "common/error.h"

namespace salient::models {
namespace {

constexpr std::string_view kBlockPrefix = "model.layers.";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kFinalNorm = "model.norm.weight";
constexpr std::string_view kHead = "lm_head.weight";
constexpr std::array<std::string_view, kLinearSlots> kLinears = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                                 "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                                 "mlp.down_proj"};
constexpr std::array<std::string_view, kNormSlots> kNorms = {"input_layernorm.weight", "post_attention_layernorm.weight", "", ""};
constexpr std::array<std::string_view, kNormSlots> kQkNorms = {"input_layernorm.weight", "post_attention_layernorm.weight",
                                                               "self_attn.q_norm.weight", "self_attn.k_norm.weight"};

constexpr Architecture kArchitectures[] = {
    {"llama", kBlockPrefix, kEmbedding, kFinalNorm, kHead, kLinears, kNorms},
    {"mistral", kBlockPrefix, kEmbedding, kFinalNorm, kHead, kLinears, kNorms},
    {"qwen2", kBlockPrefix, kEmbedding, kFinalNorm, kHead, kLinears, kNorms},
    {"qwen3", kBlockPrefix, kEmbedding, kFinalNorm, kHead, kLinears, kQkNorms},
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

const Architecture& find_architecture(std::string_view model_type) {
  std::string list;
  for (const Architecture& row : kArchitectures) {
    if (row.model_type == model_type) return row;
    list += fmt::format("{}{}", list.empty() ? "" : ", ", row.model_type);
  }
  fail(ErrorKind::kUnsupported, "model_type '{}' is not supported, only {}", model_type, list);
}

std::string linear_name(const Architecture& architecture, int64_t block, LinearSlot slot) {
  return fmt::format("{}{}.{}", architecture.block_prefix, block, architecture.linears[static_cast<size_t>(slot)]);
}

std::string norm_name(const Architecture& architecture, int64_t block, NormSlot slot) {
  const std::string_view name = architecture.norms[static_cast<size_t>(slot)];
  return name.empty() ? std::string() : fmt::format("{}{}.{}", architecture.block_prefix, block, name);
}

InputSlot input_of(LinearSlot slot) {
  switch (slot) {
    case LinearSlot::kQProj:
    case LinearSlot::kKProj:
    case LinearSlot::kVProj: return InputSlot::kAttentionInput;
    case LinearSlot::kOProj: return InputSlot::kAttentionOutput;
    case LinearSlot::kGateProj:
    case LinearSlot::kUpProj: return InputSlot::kMlpInput;
    case LinearSlot::kDownProj: return InputSlot::kMlpHidden;
  }
  fail(ErrorKind::kInternal, "no linear slot {}", static_cast<int>(slot));
}

std::array<int64_t, 2> linear_shape(const DecoderConfig& config, LinearSlot slot) {
  const int64_t queries = config.num_attention_heads * config.head_dim;
  const int64_t keys = config.num_key_value_heads * config.head_dim;
  switch (slot) {
    case LinearSlot::kQProj: return {queries, config.hidden_size};
    case LinearSlot::kKProj:
    case LinearSlot::kVProj: return {keys, config.hidden_size};
    case LinearSlot::kOProj: return {config.hidden_size, queries};
    case LinearSlot::kGateProj:
    case LinearSlot::kUpProj: return {config.intermediate_size, config.hidden_size};
    case LinearSlot::kDownProj: return {config.hidden_size, config.intermediate_size};
  }
  fail(ErrorKind::kInternal, "no linear slot {}", static_cast<int>(slot));
}

bool linear_has_bias(const DecoderConfig& config, LinearSlot slot) {
  switch (slot) {
    case LinearSlot::kQProj:
    case LinearSlot::kKProj:
    case LinearSlot::kVProj: return config.qkv_bias;
    case LinearSlot::kOProj: return config.o_bias;
    case LinearSlot::kGateProj:
    case LinearSlot::kUpProj:
    case LinearSlot::kDownProj: return config.mlp_bias;
  }
  fail(ErrorKind::kInternal, "no linear slot {}", static_cast<int>(slot));
}

}  // namespace salient::models
