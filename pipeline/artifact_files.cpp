#include "pipeline/artifact_files.h"

#include <array>
#include <string_view>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 12> kSideFiles = {
    "tokenizer.json",  "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json",      "merges.txt",            "tokenizer.model",         "chat_template.jinja",
    "chat_template.json", "generation_config.json", "training_metadata.json", "LICENSE"};

}  // namespace

void copy_side_files(const fs::path& from, const fs::path& to) {
  for (const std::string_view name : kSideFiles) {
    const fs::path source = from / name;
    if (fs::exists(source)) write_file(to / name, read_text_file(source));
  }
}

Json awq_config(Json config, const quant::QuantizationSpec& spec) {
  if (config.contains("dtype")) config["dtype"] = "float16";
  if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = "float16";
  // Readers know this layout with zero points only; a symmetric model is stored with every zero point at the middle, 8.
  config["quantization_config"] = {{"quant_method", "awq"},
                                   {"zero_point", true},
                                   {"group_size", spec.group_size},
                                   {"bits", spec.weight_bits},
                                   {"version", "gemm"},
                                   {"modules_to_not_convert", nullptr}};
  return config;
}

Json hash_checkpoint_files(const fs::path& folder) {
  Json hashes = Json::object();
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || entry.path().extension() == ".safetensors") hashes[name] = sha256_file(entry.path());
  }
  return hashes;
}

}  // namespace salient::pipeline
