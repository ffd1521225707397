// What a reader of weights needs to know of compressed-tensors' quantization_config.
// https://github.com/vllm-project/compressed-tensors, QuantizationConfig and QuantizationScheme
#pragma once

#include <optional>
#include <set>
#include <string>

#include "common/json.h"

namespace salient::models {

struct CompressedConfig {
  std::set<int> bits;             // num_bits of all integer schemes for weights
  bool activations = false;       // some scheme quantizes activations, too
  std::set<std::string> formats;  // of all schemes: "pack-quantized", "int-quantized", "float-quantized", ...
};

// Errors: corruption for another structure.
CompressedConfig read_compressed_config(const Json& config, const std::string& where);

// What it says of a runtime's numbers beside the weights. Nothing: it says nothing, or what is not computed here (float8, other
// granularities), which is then logged as a warning.
struct RuntimeBits {
  std::optional<int> activation_bits;  // 8: int8 of each token, found when it runs; of all schemes
  std::optional<int> kv_bits;          // 8: int8 with a stored scale of a block's keys and one of its values
};
// Errors: corruption.
RuntimeBits read_runtime_bits(const Json& config, const std::string& where);

// Errors: unsupported where no scheme is "pack-quantized", or where more is done than packing: transforms of activations, sparsity.
void check_runnable(const Json& config, const std::string& where);

}  // namespace salient::models
