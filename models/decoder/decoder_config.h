// The shape of a decoder as a value, read once from config.json; the forward pass, the scaling groups and the writers all read it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::models {

enum class RopeKind { kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };

std::string_view to_string(RopeKind kind);  // as config.json spells it: "llama3"

// rope_parameters (new style) or rope_theta + rope_scaling (old style) of config.json.
struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                           // linear, llama3
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  int64_t original_max_position_embeddings = 0;  // llama3
};

struct DecoderConfig {
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  std::string hidden_act = "silu";
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;                       // RMS norm of each query and key head before the rotary embedding (Qwen3)
  std::vector<int64_t> layer_sliding_window;  // [num_hidden_layers]; 0 = full attention
  at::ScalarType dtype = at::kFloat;          // torch_dtype / dtype: what the source says its weights are
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // of config.json and generation_config.json
  std::optional<int64_t> pad_token_id;
};

// Missing keys get the defaults that transformers' configuration classes of the model_type have. Errors name the key: corruption
// (missing, wrong type, heads that do not divide), unsupported (model_type, hidden_act or rope kind that is not there, with the
// list of those that are). `where` opens the error text.
DecoderConfig parse_decoder_config(const Json& config, const std::string& where);

// Adds what generation_config.json says: its eos_token_id (one or a list) to those that are there, bos and pad where config.json
// has none. Errors: corruption.
void add_generation_config(DecoderConfig& config, const Json& generation_config, const std::string& where);

// config.json of a folder, and generation_config.json where there is one. Errors: not found, corruption, unsupported.
DecoderConfig load_decoder_config(const std::filesystem::path& folder);

}  // namespace salient::models
