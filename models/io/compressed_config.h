// What a reader of weights needs to know of compressed-tensors' quantization_config.
// https://github.com/vllm-project/compressed-tensors, QuantizationConfig and QuantizationScheme
#pragma once

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

// Errors: unsupported where no scheme is "pack-quantized", or where more is done than packing: transforms of activations, sparsity.
void check_runnable(const Json& config, const std::string& where);

}  // namespace salient::models
