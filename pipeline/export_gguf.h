// A model folder as one GGUF file, without calibration: float weights by llama.cpp's own block quantizers, packed ones dequantized
// first. Of a GGUF file, tensors that have their type already are copied as they lie; one of the same format keeps the types that
// it has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/gguf/gguf_mixture.h"
#include "models/io/checkpoint.h"

namespace salient::pipeline {

struct GgufExport {
  uint64_t bytes = 0;
  std::vector<std::string> notes;  // what llama.cpp does otherwise
};

// Writes `file`, whole or not at all. Memory: one tensor in float32 (of experts one of them). Errors: unsupported: an architecture
// or option that llama.cpp has not (models/gguf/gguf_graphs.h), a tokenizer that GGUF cannot hold; those of Checkpoint; io.
GgufExport export_gguf(const models::Checkpoint& checkpoint, const models::GgufFormat& format, const std::filesystem::path& file,
                       const std::string& name);

}  // namespace salient::pipeline
