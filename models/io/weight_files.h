// Which files of a folder hold weights, whatever model they are of.
#pragma once

#include <filesystem>
#include <vector>

namespace salient::models {

// Each list is sorted by name.
struct WeightFiles {
  std::vector<std::filesystem::path> safetensors;
  std::vector<std::filesystem::path> gguf;
  std::vector<std::filesystem::path> pickled;  // .bin, .pt, .pth, .ts: not opened by anything that only looks
};

// safetensors: model.safetensors, else the shards that model.safetensors.index.json names, else all of that extension. `folder` may
// also be a single safetensors or GGUF file. Errors: corruption (an index that names a path), not found (a shard that is missing).
WeightFiles find_weight_files(const std::filesystem::path& folder);

}  // namespace salient::models
