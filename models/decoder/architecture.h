// The supported architectures: one table row each. A row holds the tensor names, what transformers' configuration class assumes
// where config.json says nothing, and a function for what is peculiar to it. There is no class per model.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "models/decoder/config_reader.h"
#include "models/decoder/decoder_config.h"

namespace salient::models {

// Defaults of the keys that parse_decoder_config reads for every architecture.
struct ConfigDefaults {
  int64_t num_key_value_heads = 0;  // 0: num_attention_heads
  int64_t head_dim = 0;             // 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings = 2048;
  double norm_eps = 1e-6;
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;
  RopePairs rope_pairs = RopePairs::kHalves;
  std::string_view hidden_act = "silu";
  bool tie_word_embeddings = false;
};

struct Architecture {
  std::string_view model_type;
  std::string_view models;  // what people know by it: "Llama 2, 3.x, Yi, SmolLM"
  const TensorNames* names;
  ConfigDefaults defaults;
  // Called when the keys that all architectures share have been read; changes what is different. nullptr = nothing is.
  void (*configure)(const ConfigReader& config, DecoderConfig& decoder) = nullptr;
  bool rotary = true;  // whether parse_decoder_config reads a rotary embedding into DecoderConfig::ropes[0], for all layers
};

// Every supported row.
std::span<const Architecture> architectures();
// `text_model`: the model_type of config.json's "text_config", for the error. Errors: unsupported, naming the nearest supported
// model_type and, where it is known, what is missing.
const Architecture& find_architecture(std::string_view model_type, std::string_view text_model = {});

}  // namespace salient::models
