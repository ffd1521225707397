// What each source about a model's format says: config files, our metadata, the folder's name. For detect.cpp, and for who runs a
// model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "common/json.h"
#include "quant/spec.h"

namespace salient::models {

// What one source says; an empty field says nothing.
struct Claim {
  std::string source = {};  // "config.json quantization_config"
  std::string format = {};  // as DetectedModel::format
  std::string method = {};  // in lower case
  std::string version = {};
  std::optional<int> bits = {};
  std::set<int> all_bits = {};  // where modules differ; `bits` is then empty, or of tensors the most frequent
  std::optional<int64_t> group_size = {};
  bool one_group_a_row = false;  // group_size could as well be called -1
  std::optional<bool> zero_point = {};
  std::optional<quant::HeadDtype> head = {};
  std::optional<int> activation_bits = {};
  std::optional<int> kv_cache_bits = {};
  std::string detail = {};  // examples, for texts
};

// "awq-gemm, method awq, 4 bits, group 128, zero points"; empty when the claim says nothing.
std::string describe(const Claim& claim);

// A quantization_config, or AutoAWQ's older quant_config.json. `where` opens error texts. Errors: corruption.
Claim read_quantization_config(const Json& config, const std::string& source, const std::string& where);
// quantization_metadata.json: {"format", "method", "spec"}. Errors: not found, corruption.
Claim read_quantization_metadata(const std::filesystem::path& path);
// The tag "AWQ_w4_g128_headfp16" in a name, else single words such as "GPTQ", "w4g64", "g64".
Claim read_folder_name(const std::string& name);

}  // namespace salient::models
