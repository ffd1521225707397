// The tensors of a GGUF file under the names and in the form of a Hugging Face checkpoint, so that a decoder can be made of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "models/gguf/gguf_tensors.h"
#include "models/io/gguf.h"

namespace salient::models {

// Where the values of one of Hugging Face's tensors lie.
struct GgufStored {
  const GgufTensor* tensor = nullptr;  // of the file
  GgufTransform transform = GgufTransform::kNone;
  std::vector<int64_t> shape;  // of the values that load() gives
  uint64_t begin = 0;          // bytes from the tensor's beginning: of experts, which share one
  uint64_t bytes = 0;
};

// Keeps a reference to the file.
class GgufWeights {
 public:
  // `config`: of models/gguf/gguf_config.h for this file. Errors: unsupported (plan_gguf_tensors); corruption for tensors that are
  // missing, of another shape, or more than the architecture has.
  GgufWeights(const GgufFile& file, const DecoderConfig& config);

  bool contains(const std::string& name) const { return places_.contains(name); }
  // Hugging Face's names, in the file's order.
  const std::vector<std::string>& names() const { return names_; }
  // float32, the checkpoint's shape; one dequantized tensor (or expert) in memory. Errors: not found; unsupported for types without
  // a dequantizer.
  at::Tensor load(const std::string& name) const;
  // Errors: not found.
  GgufStored stored(const std::string& name) const;

 private:
  struct Place {
    size_t tensor;  // of plan_
    int64_t part;   // of the first dimension of stacked experts, else -1
  };
  const Place& place(const std::string& name) const;

  const GgufFile& file_;
  GgufPlan plan_;
  std::unordered_map<std::string, Place> places_;
  std::vector<std::string> names_;
};

}  // namespace salient::models
