#include "models/gguf/gguf_graphs.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "models/decoder/block_layout.h"

namespace salient::models {
namespace {

constexpr std::string_view kTanhGelu = "gelu_pytorch_tanh";

constexpr GgufGraph kGraphs[] = {
    {.model_type = "llama",
     .architecture = "llama",
     .interleaved_rope = true,
     .qkv_bias = GgufBias::kAllowed,
     .o_bias = GgufBias::kAllowed,
     .mlp_bias = GgufBias::kAllowed,
     .rope_factors = true},
    {.model_type = "mistral", .architecture = "llama", .interleaved_rope = true, .rope_factors = true},
    {.model_type = "mixtral",
     .architecture = "llama",
     .interleaved_rope = true,
     .rope_factors = true,
     .mixture = true,
     .mixture_required = true,
     .normalized_experts = true},
    {.model_type = "qwen2", .architecture = "qwen2", .qkv_bias = GgufBias::kRequired, .square_attention = true},
    {.model_type = "qwen2_moe",
     .architecture = "qwen2moe",
     .qkv_bias = GgufBias::kRequired,
     .square_attention = true,
     .output_required = true,
     .mixture = true,
     .mixture_required = true,
     .shared_expert = true},
    {.model_type = "qwen3", .architecture = "qwen3"},
    {.model_type = "qwen3_moe", .architecture = "qwen3moe", .mixture = true, .mixture_required = true, .normalized_experts = true},
    {.model_type = "phi3", .architecture = "phi3", .square_attention = true, .partial_rope = true, .rope_factors = true},
    {.model_type = "gemma",
     .architecture = "gemma",
     .activation = kTanhGelu,
     .norm = NormKind::kRmsOnePlus,
     .sqrt_embedding = true,
     .tied_only = true},
    {.model_type = "gemma2",
     .architecture = "gemma2",
     .activation = kTanhGelu,
     .norm = NormKind::kRmsOnePlus,
     .sqrt_embedding = true,
     .attention_scale = GgufAttentionScale::kGemma,
     .attention_softcap = true,
     .logit_softcap = true,
     .window = GgufWindow::kHalf,
     .tied_only = true},
    {.model_type = "gemma3_text",
     .architecture = "gemma3",
     .activation = kTanhGelu,
     .norm = NormKind::kRmsOnePlus,
     .sqrt_embedding = true,
     .attention_scale = GgufAttentionScale::kGemma,
     .logit_softcap = true,
     .window = GgufWindow::kFiveOfSix},
    {.model_type = "granite",
     .architecture = "granite",
     .interleaved_rope = true,
     .qkv_bias = GgufBias::kAllowed,
     .o_bias = GgufBias::kAllowed,
     .mlp_bias = GgufBias::kAllowed,
     .rope_factors = true,
     .written_multipliers = true,
     .attention_scale = GgufAttentionScale::kWritten},
    {.model_type = "smollm3", .architecture = "smollm3", .interleaved_rope = true, .unrotated_fourth = true},
    {.model_type = "olmo2", .architecture = "olmo2", .square_attention = true, .output_required = true},
    {.model_type = "starcoder2",
     .architecture = "starcoder2",
     .activation = kTanhGelu,
     .gated = false,
     .norm = NormKind::kLayer,
     .qkv_bias = GgufBias::kRequired,
     .o_bias = GgufBias::kRequired,
     .mlp_bias = GgufBias::kRequired,
     .square_attention = true},
    {.model_type = "seed_oss", .architecture = "seed_oss", .qkv_bias = GgufBias::kAllowed, .mlp_norm = "post_attention_norm"},
    {.model_type = "arcee",
     .architecture = "arcee",
     .interleaved_rope = true,
     .activation = "relu2",
     .gated = false,
     .rope_factors = true},
};

bool near(double a, double b) { return std::abs(a - b) <= 1e-5 * std::max(std::abs(a), std::abs(b)); }

bool same_activation(std::string_view wanted, std::string_view found) {
  if (wanted == kTanhGelu) return found == wanted || found == "gelu_new" || found == "gelu_fast";
  if (wanted == "silu") return found == "silu" || found == "swish";
  return wanted == found;
}

// Collects what the graph has not.
class Comparison {
 public:
  Comparison(const GgufGraph& graph, const DecoderConfig& config) : graph_(graph), config_(config) {}

  void compare() {
    compare_norms();
    compare_attention();
    compare_positions();
    compare_mlp();
    compare_mixture();
    compare_outside();
    for (size_t layer = 0; layer < config_.layers.size(); ++layer) compare_layer(layer);
  }

  std::vector<std::string> missing;
  std::vector<std::string> notes;

 private:
  template <typename... Args>
  void need(bool fine, fmt::format_string<Args...> format, Args&&... args) {
    if (fine) return;
    std::string text = fmt::format(format, std::forward<Args>(args)...);
    if (std::find(missing.begin(), missing.end(), text) == missing.end()) missing.push_back(std::move(text));
  }

  void need_bias(GgufBias allowed, bool found, std::string_view name) {
    need(allowed != GgufBias::kNone || !found, "a bias of {}", name);
    need(allowed != GgufBias::kRequired || found, "{} without a bias", name);
  }

  void compare_norms() {
    need(config_.norm_kind == graph_.norm, "another kind of norm");
    need(config_.norm_bias == (graph_.norm == NormKind::kLayer), "norms {} a bias", config_.norm_bias ? "with" : "without");
    need(config_.norm_affine, "norms without weights");
    const bool head_norms = !config_.names[NormSlot::kQuery].empty();
    need(!head_norms || config_.head_norm_kind == graph_.norm, "another kind of norm of queries and keys");
    need(!config_.head_norm_bias && !config_.head_norm_after_rope && config_.head_norm_affine &&
             !config_.head_norm_rotated_layers_only && config_.head_norm != HeadNorm::kOwnWeights,
         "this way to normalize queries and keys");
  }

  void compare_attention() {
    const double plain = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
    const double scale = config_.attention_scale == 0.0 ? plain : config_.attention_scale;
    double computed = plain;
    if (graph_.attention_scale == GgufAttentionScale::kWritten) computed = scale;
    const bool gemma_27b = config_.num_hidden_layers == (graph_.window == GgufWindow::kHalf ? 46 : 62);
    if (graph_.attention_scale == GgufAttentionScale::kGemma && gemma_27b)
      computed = 1.0 / std::sqrt(static_cast<double>(config_.hidden_size / config_.num_attention_heads));
    need(near(scale, computed),
         "an attention scale of {:.6g} (query_pre_attn_scalar, attention_multiplier); its graph computes {:.6g}", scale, computed);

    need_bias(graph_.qkv_bias, config_.qkv_bias, "queries, keys and values (attention_bias)");
    need_bias(graph_.o_bias, config_.o_bias, "the attention's output (attention_bias)");
    need((config_.attention_softcap > 0.0) == graph_.attention_softcap, "attn_logit_softcapping {}", config_.attention_softcap);
    const int64_t width = config_.num_attention_heads * config_.head_dim;
    need(!graph_.square_attention || width == config_.hidden_size, "num_attention_heads * head_dim {} unlike hidden_size {}", width,
         config_.hidden_size);
    need(config_.qkv_groups == 1 && !config_.query_gate && config_.query_growth.beta == 0.0 && config_.qkv_clip == 0.0,
         "gated, growing or clipped queries");
  }

  void compare_positions() {
    need(config_.position == PositionKind::kRope && !config_.ropes.empty(), "positions that are not rotary");
    for (const RopeConfig& rope : config_.ropes) {
      need(rope.kind != RopeKind::kDynamic, "rope scaling 'dynamic'");
      const bool factors = rope.kind == RopeKind::kLlama3 || rope.kind == RopeKind::kLongRope;
      need(!factors || graph_.rope_factors, "rope scaling '{}'", to_string(rope.kind));
      need(rope.kind != RopeKind::kYarn || rope.truncate, "yarn without truncate");
      need(rope.pairs == RopePairs::kHalves, "interleaved rotary pairs");
      need(rope.dim == config_.head_dim || graph_.partial_rope, "a partial_rotary_factor ({} of {} channels)", rope.dim,
           config_.head_dim);
      need(rope.frequency_dim == 0 || rope.frequency_dim == rope.dim, "an odd number of rotated channels");
    }
    const size_t ropes = graph_.window == GgufWindow::kFiveOfSix ? 2 : 1;
    need(config_.ropes.size() <= ropes, "rotary embeddings that differ by layer");
    if (config_.ropes.size() == 2) need(config_.ropes[1].kind == RopeKind::kDefault, "rope scaling of the layers with a window");
  }

  void compare_mlp() {
    need(same_activation(graph_.activation, config_.hidden_act), "hidden_act '{}'; its graph computes '{}'", config_.hidden_act,
         graph_.activation);
    need(config_.gated_mlp == graph_.gated, "{} MLP", config_.gated_mlp ? "a gated" : "an ungated");
    need_bias(graph_.mlp_bias, config_.mlp_bias, "the MLP (mlp_bias)");
  }

  void compare_mixture() {
    const auto mixtures =
        std::count_if(config_.layers.begin(), config_.layers.end(), [](const LayerConfig& layer) { return layer.moe; });
    need(mixtures == 0 || graph_.mixture, "mixtures of experts");
    need(mixtures != 0 || !graph_.mixture_required, "a model without experts");
    need(mixtures == 0 || mixtures == static_cast<std::ptrdiff_t>(config_.layers.size()),
         "mixtures in some layers only (decoder_sparse_step, mlp_only_layers)");
    if (mixtures == 0) return;
    const MoeConfig& moe = config_.moe;
    need(moe.score == RouterScore::kSoftmax || (moe.score == RouterScore::kSoftmaxOfChosen && graph_.normalized_experts),
         "this way to score experts");
    need(moe.score == RouterScore::kSoftmaxOfChosen || moe.normalize == graph_.normalized_experts, "norm_topk_prob {}",
         moe.normalize);
    need(moe.scaling_factor == 1.0 && moe.groups == 1 && !moe.weight_input && !moe.router_bias && !moe.expert_bias &&
             moe.swiglu_limit == 0.0,
         "scaled, grouped or biased experts");
    need((moe.shared_intermediate_size > 0) == graph_.shared_expert, "{} shared expert",
         moe.shared_intermediate_size > 0 ? "a" : "no");
    need(config_.names.fused_down.empty(), "experts stored in one tensor");
  }

  void compare_outside() {
    need(!config_.parallel_residual && !config_.residual_from_norm, "a parallel residual");
    need(config_.names.embedding_norm.empty(), "a norm of the embeddings");
    need(!config_.lm_head_bias, "a bias of the head (lm_head_bias)");
    const double embedding = graph_.sqrt_embedding ? std::sqrt(static_cast<double>(config_.hidden_size)) : 1.0;
    need(graph_.written_multipliers || near(config_.embedding_multiplier, embedding), "an embedding multiplier of {:.6g}",
         config_.embedding_multiplier);
    need(graph_.written_multipliers || (config_.residual_multiplier == 1.0 && config_.logit_multiplier == 1.0),
         "multipliers of residuals or logits");
    need(config_.logit_softcap == 0.0 || graph_.logit_softcap, "final_logit_softcapping {}", config_.logit_softcap);
    need(config_.tie_word_embeddings || !graph_.tied_only, "a head of its own (tie_word_embeddings false)");
    if (config_.wrapper != nullptr)
      notes.push_back("only the text model is written: llama.cpp reads image encoders from a file of their own (mmproj)");
  }

  void compare_layer(size_t index) {
    const LayerConfig& layer = config_.layers[index];
    need(layer.attention == AttentionKind::kStandard && layer.attention_chunk == 0, "latent, linear or chunked attention");
    const bool rotated = !graph_.unrotated_fourth || (index + 1) % 4 != 0;
    need((layer.rope >= 0) == rotated, "{} positions in layer {} (no_rope_layers)", layer.rope >= 0 ? "rotary" : "no", index);
    compare_window(index, layer);
    for (const ParameterSpec& parameter : block_layout(config_, static_cast<int64_t>(index)).parameters)
      need(parameter.optional, "the tensor {}", parameter.name);
  }

  void compare_window(size_t index, const LayerConfig& layer) {
    if (graph_.window == GgufWindow::kNone) {
      if (layer.sliding_window == 0 || layer.sliding_window >= config_.max_position_embeddings) return;
      std::string note = fmt::format("sliding_window {}: llama.cpp has none for '{}', so that longer texts come out differently",
                                     layer.sliding_window, graph_.architecture);
      if (std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
      return;
    }
    const size_t period = graph_.window == GgufWindow::kHalf ? 2 : 6;
    need((layer.sliding_window > 0) == ((index + 1) % period != 0),
         "another pattern of sliding windows than every {}th layer without (layer {})", period, index);
  }

  const GgufGraph& graph_;
  const DecoderConfig& config_;
};

}  // namespace

std::span<const GgufGraph> gguf_graphs() { return kGraphs; }

GgufGraphChoice choose_gguf_graph(const DecoderConfig& config) {
  const auto* const row = std::find_if(std::begin(kGraphs), std::end(kGraphs),
                                       [&](const GgufGraph& graph) { return graph.model_type == config.model_type; });
  if (row == std::end(kGraphs)) {
    std::string list;
    for (const GgufGraph& graph : kGraphs) list += (list.empty() ? "" : ", ") + std::string(graph.model_type);
    throw Error(ErrorKind::kUnsupported, fmt::format("model_type '{}' cannot be written as GGUF, only {}", config.model_type, list))
        .with_hint("another format, such as awq-gemm or compressed-tensors, takes every architecture");
  }
  Comparison comparison(*row, config);
  comparison.compare();
  if (comparison.missing.empty()) return {row, std::move(comparison.notes)};
  std::string list;
  for (const std::string& option : comparison.missing) list += (list.empty() ? "" : "; ") + option;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("model_type '{}' as GGUF: llama.cpp's '{}' has not: {}", config.model_type, row->architecture, list))
      .with_hint("another format, such as awq-gemm or compressed-tensors, takes every option");
}

}  // namespace salient::models
