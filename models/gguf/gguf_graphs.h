// What llama.cpp computes for each architecture that GGUF files are written for: a model that needs more is refused before any
// work. One row each. Source: the loaders and graphs of llama.cpp, https://github.com/ggml-org/llama.cpp/tree/master/src/models,
// and its converter.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/decoder_config.h"

namespace salient::models {

enum class GgufBias : uint8_t { kNone, kAllowed, kRequired };

// Which layers see a window of the past only.
enum class GgufWindow : uint8_t {
  kNone,       // the graph has none: texts longer than the model's window come out differently, which is noted
  kHalf,       // every second layer sees everything, the first one does not
  kFiveOfSix,  // every sixth layer sees everything
};

// Where the factor of the attention's logits comes from.
enum class GgufAttentionScale : uint8_t {
  kHeadSize,  // 1 / sqrt(head_dim)
  kGemma,     // the same, but 1 / sqrt(hidden_size / heads) for the 27B models, which are told by their number of layers
  kWritten,   // the key attention.scale
};

struct GgufGraph {
  std::string_view model_type;    // of config.json
  std::string_view architecture;  // general.architecture
  // Rotary pairs are neighbouring channels there: rows of queries and keys have another order than in Hugging Face checkpoints.
  bool interleaved_rope = false;
  std::string_view activation = "silu";  // as models/decoder/mlp.h names it
  bool gated = true;
  NormKind norm = NormKind::kRms;
  GgufBias qkv_bias = GgufBias::kNone;
  GgufBias o_bias = GgufBias::kNone;
  GgufBias mlp_bias = GgufBias::kNone;
  bool square_attention = false;     // heads * head_dim must be hidden_size
  bool partial_rope = false;         // fewer channels than head_dim may be rotated
  bool rope_factors = false;         // reads divisors of the frequencies from a tensor: llama3 and longrope scaling
  bool unrotated_fourth = false;     // every fourth layer has no positions
  bool sqrt_embedding = false;       // embeddings times sqrt(hidden_size)
  bool written_multipliers = false;  // embedding, residual and logit multipliers are keys
  GgufAttentionScale attention_scale = GgufAttentionScale::kHeadSize;
  bool attention_softcap = false;  // always capped
  bool logit_softcap = false;      // capped where the key says so
  GgufWindow window = GgufWindow::kNone;
  bool tied_only = false;        // there is no output.weight
  bool output_required = false;  // output.weight is written even where the embedding serves as head
  // Mixtures: every layer has one or none has.
  bool mixture = false;
  bool mixture_required = false;
  bool normalized_experts = false;  // the chosen experts' weights are divided by their sum
  bool shared_expert = false;
  std::string_view mlp_norm = "ffn_norm";  // GGUF's name of NormSlot::kMlpInput
};

// All rows.
std::span<const GgufGraph> gguf_graphs();

struct GgufGraphChoice {
  const GgufGraph* graph = nullptr;
  // What a reader of the file should know: things that llama.cpp leaves out without harm for short texts.
  std::vector<std::string> notes;
};

// The row of the configuration. Errors: unsupported, for a model_type without a row (with the list of those that have one) and for
// options that the graph has not (all of them are named).
GgufGraphChoice choose_gguf_graph(const DecoderConfig& config);

}  // namespace salient::models
