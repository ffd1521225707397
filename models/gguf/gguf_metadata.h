// The metadata of a GGUF file that describe the model: general.* and <architecture>.*. Keys and types:
// https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py (llama.cpp converts no types: a key of another type
// is an error).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/io/gguf_header.h"

namespace salient::models {

struct GgufDescription {
  std::string name;        // general.name; "" = left out
  uint32_t file_type = 1;  // general.file_type: models/gguf/gguf_mixture.h
};

// general.architecture first, then the others of general.*, then the architecture's. The divisors of rotary frequencies are
// tensors: models/gguf/gguf_tensors.h. Errors: unsupported (choose_gguf_graph).
std::vector<GgufPair> gguf_metadata(const DecoderConfig& config, const GgufDescription& description);

}  // namespace salient::models
