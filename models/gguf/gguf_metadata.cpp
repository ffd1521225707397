#include "models/gguf/gguf_metadata.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "models/gguf/gguf_graphs.h"

namespace salient::models {
namespace {

// Version of the quantized blocks' layouts. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
constexpr uint32_t kQuantizationVersion = 2;

class MetadataWriter {
 public:
  MetadataWriter(const GgufGraph& graph, const DecoderConfig& config) : graph_(graph), config_(config) {}

  std::vector<GgufPair> write(const GgufDescription& description) {
    pairs_.push_back({"general.architecture", std::string(graph_.architecture)});
    pairs_.push_back({"general.type", std::string("model")});
    if (!description.name.empty()) pairs_.push_back({"general.name", description.name});
    pairs_.push_back({"general.file_type", description.file_type});
    pairs_.push_back({"general.quantization_version", kQuantizationVersion});
    add_sizes();
    add_attention();
    add_ropes();
    add_mixture();
    add_multipliers();
    return std::move(pairs_);
  }

 private:
  void add(std::string_view key, GgufValue value) {
    pairs_.push_back({fmt::format("{}.{}", graph_.architecture, key), std::move(value)});
  }
  void add_count(std::string_view key, int64_t value) { add(key, static_cast<uint32_t>(value)); }
  void add_number(std::string_view key, double value) { add(key, static_cast<float>(value)); }

  void add_sizes() {
    add_count("context_length", config_.max_position_embeddings);
    add_count("embedding_length", config_.hidden_size);
    add_count("block_count", config_.num_hidden_layers);
    add_count("feed_forward_length", config_.intermediate_size);
    add_count("vocab_size", config_.vocab_size);
  }

  void add_attention() {
    add_count("attention.head_count", config_.num_attention_heads);
    add_count("attention.head_count_kv", config_.num_key_value_heads);
    add_count("attention.key_length", config_.head_dim);
    add_count("attention.value_length", config_.head_dim);
    add_number(graph_.norm == NormKind::kLayer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
               config_.norm_eps);
    int64_t window = 0;
    for (const LayerConfig& layer : config_.layers) window = std::max(window, layer.sliding_window);
    // Phi-3's loader wants the key, 0 included.
    if (graph_.window != GgufWindow::kNone || graph_.architecture == "phi3") add_count("attention.sliding_window", window);
    if (graph_.attention_softcap) add_number("attn_logit_softcapping", config_.attention_softcap);
    // Gemma 2's loader assumes 30 without the key.
    if (graph_.logit_softcap && (config_.logit_softcap > 0.0 || graph_.attention_softcap))
      add_number("final_logit_softcapping", config_.logit_softcap);
  }

  void add_ropes() {
    const RopeConfig& rope = config_.ropes.at(0);
    add_count("rope.dimension_count", rope.dim);
    add_number("rope.freq_base", rope.theta);
    if (config_.ropes.size() > 1) add_number("rope.freq_base_swa", config_.ropes[1].theta);
    switch (rope.kind) {
      case RopeKind::kLinear:
        add("rope.scaling.type", std::string("linear"));
        add_number("rope.scaling.factor", rope.factor);
        return;
      case RopeKind::kYarn: return add_yarn(rope);
      case RopeKind::kLongRope:
        add("rope.scaling.type", std::string("longrope"));
        add_count("rope.scaling.original_context_length", rope.original_max_position_embeddings);
        add_number("rope.scaling.attn_factor", rope.attention_factor);
        return;
      default: return;  // llama3's divisors are a tensor
    }
  }

  void add_yarn(const RopeConfig& rope) {
    add("rope.scaling.type", std::string("yarn"));
    add_number("rope.scaling.factor", rope.factor);
    add_count("rope.scaling.original_context_length", rope.original_max_position_embeddings);
    // llama.cpp multiplies the usual magnitude by this one.
    const double magnitude = rope.attention_factor / yarn_magnitude(rope.factor, 1.0);
    if (std::abs(magnitude - 1.0) > 1e-6) add_number("rope.scaling.attn_factor", magnitude);
    if (rope.beta_fast != RopeConfig{}.beta_fast) add_number("rope.scaling.yarn_beta_fast", rope.beta_fast);
    if (rope.beta_slow != RopeConfig{}.beta_slow) add_number("rope.scaling.yarn_beta_slow", rope.beta_slow);
  }

  void add_mixture() {
    if (!config_.layers.at(0).moe) return;
    add_count("expert_count", config_.moe.num_experts);
    add_count("expert_used_count", config_.moe.experts_per_token);
    add_count("expert_feed_forward_length", config_.moe.intermediate_size);
    if (config_.moe.shared_intermediate_size > 0)
      add_count("expert_shared_feed_forward_length", config_.moe.shared_intermediate_size);
  }

  void add_multipliers() {
    if (graph_.attention_scale == GgufAttentionScale::kWritten) add_number("attention.scale", config_.attention_scale);
    if (!graph_.written_multipliers) return;
    add_number("embedding_scale", config_.embedding_multiplier);
    add_number("residual_scale", config_.residual_multiplier);
    add_number("logit_scale", 1.0 / config_.logit_multiplier);  // logits are divided by it
  }

  const GgufGraph& graph_;
  const DecoderConfig& config_;
  std::vector<GgufPair> pairs_;
};

}  // namespace

std::vector<GgufPair> gguf_metadata(const DecoderConfig& config, const GgufDescription& description) {
  return MetadataWriter(*choose_gguf_graph(config).graph, config).write(description);
}

}  // namespace salient::models
