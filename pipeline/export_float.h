// A GGUF file, or a LoRA adapter merged into its base, as a Hugging Face folder: config.json and safetensors, for readers that have
// neither.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"

namespace salient::pipeline {

struct FloatExport {
  std::vector<std::filesystem::path> files;  // names of the shards
  uint64_t bytes = 0;                        // of tensors
  std::vector<std::string> notes;
};

// Writes config.json and shards of at most `max_shard_bytes` into `folder`, which is there. Float tensors keep their type (merged
// ones that of the base, rounded once), blocks become float32, which holds their values exactly. Memory: one tensor. Errors:
// invalid argument for a checkpoint that is a folder already; those of Checkpoint; io.
FloatExport export_float(const models::Checkpoint& checkpoint, const std::filesystem::path& folder,
                         uint64_t max_shard_bytes = uint64_t{5} << 30);

}  // namespace salient::pipeline
