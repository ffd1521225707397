#include "models/gguf/gguf_mixture.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace salient::models {
namespace {

using quant::GgmlType;
constexpr GgmlType kNone = GgmlType::kF32;

constexpr GgufFormat kFormats[] = {
    // name            file_type  id  type              head              more              first             eight_experts
    {"gguf-f16", "F16", 1, GgmlType::kF16, kNone, kNone, kNone, kNone},
    {"gguf-bf16", "BF16", 32, GgmlType::kBF16, kNone, kNone, kNone, kNone},
    {"gguf-q8_0", "Q8_0", 7, GgmlType::kQ8_0, GgmlType::kQ8_0, kNone, kNone, kNone},
    {"gguf-q4_0", "Q4_0", 2, GgmlType::kQ4_0, GgmlType::kQ6_K, kNone, kNone, kNone},
    {"gguf-q4_k_s", "Q4_K_S", 14, GgmlType::kQ4_K, GgmlType::kQ6_K, kNone, GgmlType::kQ5_K, GgmlType::kQ5_K},
    {"gguf-q4_k_m", "Q4_K_M", 15, GgmlType::kQ4_K, GgmlType::kQ6_K, GgmlType::kQ6_K, kNone, GgmlType::kQ5_K},
    {"gguf-q5_k_m", "Q5_K_M", 17, GgmlType::kQ5_K, GgmlType::kQ6_K, GgmlType::kQ6_K, kNone, kNone},
    {"gguf-q6_k", "Q6_K", 18, GgmlType::kQ6_K, GgmlType::kQ6_K, kNone, kNone, kNone},
};

constexpr int64_t kFirstValueLayers = 4;

// About half of the layers: the first and the last eighth, and every third between.
bool gets_more(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

struct TensorName {
  int64_t layer = -1;     // -1: outside of blocks
  std::string_view part;  // "attn_v"
};
TensorName read_name(std::string_view name) {
  TensorName result{-1, name.substr(0, name.rfind('.'))};
  if (!name.starts_with("blk.")) return result;
  const char* const end = name.data() + name.size();
  const auto [after, error] = std::from_chars(name.data() + 4, end, result.layer);
  if (error == std::errc() && after != end) result.part.remove_prefix(static_cast<size_t>(after + 1 - name.data()));
  return result;
}

// 80 layers whose query heads share keys and values: values are small, and what they cost more hardly shows.
bool is_70b(const DecoderConfig& config) {
  if (config.num_hidden_layers != 80 || config.moe.num_experts == 8) return false;
  return config.model_type == "qwen2" || ((config.model_type == "llama" || config.model_type == "mistral") &&
                                          config.num_attention_heads != config.num_key_value_heads);
}

bool fits(GgmlType type, int64_t columns) { return columns % quant::ggml_type_info(type).block_elements == 0; }

GgmlType fitting(GgmlType type, int64_t columns) {
  if (fits(type, columns)) return type;
  switch (type) {
    case GgmlType::kQ4_K: type = GgmlType::kQ5_0; break;
    case GgmlType::kQ5_K: type = GgmlType::kQ5_1; break;
    case GgmlType::kQ6_K: type = GgmlType::kQ8_0; break;
    default: break;
  }
  return fits(type, columns) ? type : GgmlType::kF16;
}

class Mixture {
 public:
  Mixture(const GgufFormat& format, const DecoderConfig& config, const GgufMixtureOptions& options)
      : format_(format),
        config_(config),
        options_(options),
        layers_(config.num_hidden_layers),
        eight_(config.moe.num_experts == 8) {}

  GgmlType type_of(const TensorName& name, bool serves_as_head) const {
    if (options_.pure || format_.head == kNone) return format_.type;
    if (serves_as_head) return format_.head;
    if (name.part == "attn_v" || name.part == "attn_qkv") return values_type(name.layer);
    if (name.part == "attn_k" && eight_) return GgmlType::kQ8_0;
    if (name.part == "attn_output" && eight_) return or_plain(format_.eight_experts);
    if (name.part.starts_with("ffn_down")) return down_type(name.layer);
    return format_.type;
  }

 private:
  GgmlType or_plain(GgmlType type) const { return type == kNone ? format_.type : type; }

  GgmlType values_type(int64_t layer) const {
    if (eight_) return GgmlType::kQ8_0;
    GgmlType type = format_.type;
    if (gets_more(layer, layers_)) type = or_plain(format_.more);
    if (format_.first != kNone && layer < kFirstValueLayers) type = format_.first;
    return type == GgmlType::kQ4_K && is_70b(config_) ? GgmlType::kQ5_K : type;
  }

  GgmlType down_type(int64_t layer) const {
    const bool first = layer < layers_ / 8;
    // Q4_0 can go astray there although it knows what matters.
    if (format_.type == GgmlType::kQ4_0) return options_.importance && first ? GgmlType::kQ4_1 : GgmlType::kQ4_0;
    if (format_.first != kNone && first) return format_.first;
    return gets_more(layer, layers_) ? or_plain(format_.more) : format_.type;
  }

  const GgufFormat& format_;
  const DecoderConfig& config_;
  const GgufMixtureOptions& options_;
  int64_t layers_;
  bool eight_;
};

}  // namespace

std::span<const GgufFormat> gguf_formats() { return kFormats; }

const GgufFormat* find_gguf_format(std::string_view name) {
  const auto* const row =
      std::find_if(std::begin(kFormats), std::end(kFormats), [&](const GgufFormat& format) { return format.name == name; });
  return row == std::end(kFormats) ? nullptr : row;
}

std::vector<GgmlType> gguf_mixture(const GgufFormat& format, const DecoderConfig& config,
                                   const std::vector<GgufTensorPlan>& tensors, const GgufMixtureOptions& options) {
  const bool has_head =
      std::any_of(tensors.begin(), tensors.end(), [](const GgufTensorPlan& tensor) { return tensor.name == "output.weight"; });
  const std::string_view head = has_head ? "output.weight" : "token_embd.weight";
  const Mixture mixture(format, config, options);
  std::vector<GgmlType> types;
  for (const GgufTensorPlan& tensor : tensors) {
    types.push_back(tensor.quantizable ? fitting(mixture.type_of(read_name(tensor.name), tensor.name == head), tensor.shape.back())
                                       : GgmlType::kF32);
  }
  return types;
}

}  // namespace salient::models
