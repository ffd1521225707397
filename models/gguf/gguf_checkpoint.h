// A GGUF file in the place of a checkpoint folder: a configuration, and tensors by Hugging Face's names with the values that the
// file holds, dequantized one at a time when they are asked for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "common/json.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_weights.h"
#include "models/io/gguf.h"
#include "models/io/safetensors.h"

namespace salient::models {

class GgufCheckpoint {
 public:
  // Reads the head, no tensor data. Errors: those of GgufFile, config_from_gguf and GgufWeights; unsupported for importance
  // matrices and for one part of a file that was split.
  explicit GgufCheckpoint(const std::filesystem::path& path);
  GgufCheckpoint(const GgufCheckpoint&) = delete;
  GgufCheckpoint& operator=(const GgufCheckpoint&) = delete;

  const std::filesystem::path& path() const { return file_.path(); }
  const GgufHeader& header() const { return file_.header(); }
  const GgufSummary& summary() const { return summary_; }
  // That of config_from_gguf; where weights are in blocks with a "quantization_config" {"quant_method": "gguf", "file_type":
  // "Q4_K_M", "bits_per_weight": 4.83, "tensor_types": {"Q4_K": 24, ...}}.
  const Json& config() const { return config_; }

  // By name: the type that load() gives (float32 for blocks, else as stored), Hugging Face's shape, and where the stored bytes lie.
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  // The values, in memory of their own. Errors: not found; unsupported for types without a dequantizer.
  at::Tensor load(const std::string& name) const;

 private:
  GgufFile file_;
  GgufSummary summary_;
  Json config_;
  GgufWeights weights_;
  std::map<std::string, TensorInfo> tensors_;
};

}  // namespace salient::models
