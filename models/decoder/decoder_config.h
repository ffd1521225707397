// The shape of a decoder as a value, read once from config.json; loading, the forward pass, the scaling groups and the writers all
// read it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/decoder/norm.h"
#include "models/decoder/rope.h"
#include "models/decoder/tensor_names.h"

namespace salient::models {

class Checkpoint;
struct TextSpelling;
struct Wrapper;

enum class AttentionKind : uint8_t {
  kStandard,  // multi-head, grouped-query or multi-query
  kLatent,    // DeepSeek's multi-head latent attention (arXiv 2405.04434)
  kLinear,    // gated delta rule (Yang et al., arXiv 2412.06464)
};

enum class PositionKind : uint8_t { kRope, kAlibi, kLearned };

// What the query and key norms cover.
enum class HeadNorm : uint8_t {
  kEachHead,    // one weight [head_dim] for all heads
  kWholeWidth,  // one norm over all heads at once, [heads * head_dim]
  kOwnWeights,  // each head has its own weight, [heads, head_dim]
};

struct LayerConfig {
  AttentionKind attention = AttentionKind::kStandard;
  int64_t sliding_window = 0;   // 0 = full attention
  int64_t attention_chunk = 0;  // > 0: positions see only those of their own chunk of so many (Llama 4)
  int64_t rope = 0;             // index in DecoderConfig::ropes, -1 = none
  bool moe = false;
};

// DeepSeek's multi-head latent attention. The head size for queries and keys is qk_nope_head_dim + qk_rope_head_dim.
struct LatentAttentionConfig {
  int64_t q_lora_rank = 0;  // 0: q_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
};

// Gated delta rule of Qwen3-Next.
struct LinearAttentionConfig {
  int64_t num_key_heads = 0;
  int64_t num_value_heads = 0;
  int64_t key_head_dim = 0;
  int64_t value_head_dim = 0;
  int64_t convolution = 4;  // kernel width
};

enum class RouterScore : uint8_t {
  kSoftmax,          // softmax over all experts, then the best are taken
  kSoftmaxOfChosen,  // the best are taken, then softmax over those
  kSigmoid,
  kSparseMixer,  // one after the other, each weighed against the experts whose logit is near its own (arXiv 2409.12136)
};

// How groups of experts are ranked where only some groups may be chosen.
enum class GroupScore : uint8_t { kNone, kMax, kTopTwoSum };

struct MoeConfig {
  int64_t num_experts = 0;
  int64_t experts_per_token = 0;
  int64_t intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  RouterScore score = RouterScore::kSoftmax;
  bool normalize = false;          // the chosen weights are divided by their sum
  double normalize_epsilon = 0.0;  // added to that sum
  double normalize_minimum = 0.0;  // that sum is taken to be at least this
  double router_jitter = 0.0;      // kSparseMixer: logits count as near up to twice this, relative to their size
  double scaling_factor = 1.0;     // of the chosen weights, after normalizing
  int64_t groups = 1;
  int64_t groups_per_token = 1;
  GroupScore group_score = GroupScore::kNone;
  bool weight_input = false;       // the weight multiplies the expert's input, not its output (Llama 4)
  bool fused_transposed = false;   // fused expert tensors are [experts, in, out]
  bool fused_either_way = false;   // or not: the checkpoint's shapes say it
  bool fused_interleaved = false;  // rows of gate and up alternate (gpt-oss)
  bool expert_bias = false;
  bool router_bias = false;
  bool correction_row = false;  // the correction bias is stored as [1, experts]
  double swiglu_limit = 0.0;    // gpt-oss: clamped, (up + 1) * gate * sigmoid(swiglu_alpha * gate); 0 = the plain product
  double swiglu_alpha = 1.702;
};

// The queries of late positions are made larger: times 1 + beta * ln(1 + floor((position + shift) / period)).
struct QueryGrowth {
  double beta = 0.0;  // 0 = not
  int64_t period = 1;
  int64_t shift = 0;
  bool unrotated_layers_only = false;  // only in layers without a rotary embedding (Llama 4)
};

struct DecoderConfig {
  std::string model_type;
  TensorNames names;  // the architecture's, as this configuration has them
  // Of a text model inside of a multimodal one (models/decoder/wrappers.h): which, and how its checkpoint spells the names. Else
  // nullptr.
  const Wrapper* wrapper = nullptr;
  const TextSpelling* text_spelling = nullptr;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;

  NormKind norm_kind = NormKind::kRms;
  double norm_eps = 1e-6;
  bool norm_bias = false;         // of the hidden-sized norms
  bool norm_affine = true;        // false: norms without parameters (OLMo)
  double latent_norm_eps = 1e-6;  // of kQueryLatent and kKvLatent

  std::string hidden_act = "silu";  // as the table in models/decoder/activation.h names them
  bool gated_mlp = true;            // act(gate) * up; otherwise act(up)
  bool parallel_residual = false;   // attention and MLP both read the block's input; without kMlpInput also the same norm's output
  bool residual_from_norm =
      false;  // a branch's output is added to what its norm gives, not to what the norm reads (BLOOM's option)
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool lm_head_bias = false;

  // A fused qkv_proj's rows: `qkv_groups` times (queries, keys, values) of heads in equal shares. 1 = all queries, all keys, all
  // values.
  int64_t qkv_groups = 1;
  HeadNorm head_norm = HeadNorm::kEachHead;
  NormKind head_norm_kind = NormKind::kRms;
  bool head_norm_bias = false;
  bool head_norm_after_rope = false;
  bool head_norm_affine = true;  // false: without parameters (Llama 4)
  bool head_norm_rotated_layers_only = false;
  bool query_gate =
      false;  // q_proj gives each head's query and a gate of the same size; sigmoid(gate) multiplies the attention's output
  double attention_scale = 0.0;    // 0: 1 / sqrt(head_dim)
  double attention_softcap = 0.0;  // cap * tanh(logit / cap); 0 = none
  QueryGrowth query_growth;
  double qkv_clip = 0.0;  // queries and keys, once normalized, and values are clamped to +-this; 0 = not

  PositionKind position = PositionKind::kRope;
  std::vector<RopeConfig> ropes;
  double alibi_max_bias = 8.0;  // attention with linear biases (arXiv 2108.12409): head h of n has slope 2^(-max_bias (h + 1) / n)
  double alibi_multiplier = 1.0;  // of the biases
  bool alibi_bfloat16 = false;    // slopes, positions and biases are rounded to bfloat16, as Falcon's are
  int64_t position_offset = 0;    // learned positions: row of position 0
  int64_t learned_positions = 0;  // learned positions: rows of the table

  double embedding_multiplier = 1.0;  // rounded to the activations' dtype before use, as transformers does for Gemma
  double residual_multiplier = 1.0;
  double logit_multiplier = 1.0;
  double logit_softcap = 0.0;

  std::vector<LayerConfig> layers;  // [num_hidden_layers]
  LatentAttentionConfig latent;
  LinearAttentionConfig linear_attention;
  MoeConfig moe;

  at::ScalarType dtype = at::kFloat;  // torch_dtype / dtype: what the source says its weights are
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // of config.json and generation_config.json
  std::optional<int64_t> pad_token_id;
};

// Of a multimodal model (models/decoder/wrappers.h) the text model is read; `model_type` is then the text model's.
// Missing keys get the defaults that transformers' configuration classes of the model_type have. Errors name the key: corruption
// (missing, wrong type, heads that do not divide), unsupported (model_type, activation or rope kind that is not there, with the
// list of those that are; an option of the architecture that is not built). `where` opens the error text.
DecoderConfig parse_decoder_config(const Json& config, const std::string& where);

// Adds what generation_config.json says: its eos_token_id (one or a list) to those that are there, bos and pad where config.json
// has none. Errors: corruption.
void add_generation_config(DecoderConfig& config, const Json& generation_config, const std::string& where);

// config.json of a folder, and generation_config.json where there is one. Errors: not found, corruption, unsupported.
DecoderConfig load_decoder_config(const std::filesystem::path& folder);
// The same, with the tensors' names as this checkpoint has them: published ones may lack the first part ("transformer.") of all
// names but the head's, and those of a text model inside of a multimodal one are spelled in several ways.
DecoderConfig load_decoder_config(const Checkpoint& checkpoint);

}  // namespace salient::models
