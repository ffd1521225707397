// Checkpoints of tests/data/architectures/<model_type>.json: a config and a list of tensors whose values follow from their names,
// so that the files stay small. scripts/goldens/architecture_cases.py makes the same values for the reference.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "common/file.h"
#include "common/json.h"
#include "models/io/checkpoint_writer.h"

namespace salient::test {

// FNV-1a, 64 bits. http://www.isthe.com/chongo/tech/comp/fnv/
inline uint64_t fnv1a64(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

// https://prng.di.unimi.it/splitmix64.c
inline uint64_t splitmix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// float32 of `shape`, uniform in [offset - scale, offset + scale): element i, row-major, from splitmix64(fnv1a64(name) + i).
inline at::Tensor golden_tensor(const std::string& name, const std::vector<int64_t>& shape, double offset, double scale) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  const uint64_t seed = fnv1a64(name);
  float* data = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const uint64_t bits = splitmix64(seed + static_cast<uint64_t>(i)) >> 40;
    const double u = static_cast<double>(static_cast<int64_t>(bits) - (int64_t{1} << 23)) / static_cast<double>(int64_t{1} << 23);
    data[i] = static_cast<float>(offset + scale * u);
  }
  return tensor;
}

// {"transformers": ..., "cases": [{"name", "config", "tensors", "ids", "positions", "logits", "greedy"}, ...]} of one architecture.
inline std::filesystem::path golden_file(const std::string& model_type) {
  return std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/architectures" / (model_type + ".json");
}

// The model types that have a file, sorted.
inline std::vector<std::string> golden_model_types() {
  std::vector<std::string> types;
  for (const auto& entry : std::filesystem::directory_iterator(golden_file("any").parent_path())) {
    if (entry.path().extension() == ".json") types.push_back(entry.path().stem().string());
  }
  std::sort(types.begin(), types.end());
  return types;
}

// One case of a golden file, as the parameter of a test.
struct GoldenCase {
  std::string model_type;
  size_t index = 0;  // among all cases
  Json golden;
  std::string name() const { return model_type + "_" + golden.at("name").get<std::string>(); }
};
inline void PrintTo(const GoldenCase& value, std::ostream* out) { *out << value.name(); }

inline std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const std::string& model_type : golden_model_types()) {
    const Json file = read_json_file(golden_file(model_type));
    for (const Json& golden : file.at("cases")) cases.push_back({model_type, cases.size(), golden});
  }
  return cases;
}

// "phi3_longrope (old)" -> "phi3_longrope__old_": as GoogleTest wants names.
inline std::string golden_test_name(const GoldenCase& value) {
  std::string name = value.name();
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

// Writes config.json and model.safetensors of one case into `folder`, which holds no checkpoint yet.
inline void write_golden_checkpoint(const Json& golden_case, const std::filesystem::path& folder) {
  std::vector<models::PlannedTensor> planned;
  for (const Json& tensor : golden_case.at("tensors")) {
    planned.push_back({tensor.at(0).get<std::string>(), at::kFloat, tensor.at(1).get<std::vector<int64_t>>()});
  }
  models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
  for (const Json& tensor : golden_case.at("tensors")) {
    const auto name = tensor.at(0).get<std::string>();
    writer.put(name, golden_tensor(name, tensor.at(1).get<std::vector<int64_t>>(), tensor.at(2).get<double>(),
                                   tensor.at(3).get<double>()));
  }
  writer.finish();
  write_file(folder / "config.json", dump_json(golden_case.at("config"), 2) + "\n");
}

}  // namespace salient::test
