// A Hugging Face checkpoint folder: config.json, and one safetensors file or several with model.safetensors.index.json. Or a GGUF
// file in a checkpoint's place: models/gguf/gguf_checkpoint.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/io/safetensors.h"

namespace salient::models {

class GgufCheckpoint;

// Zeros behind a tensor's own elements in one dimension, as if they stood in the file.
struct TensorPadding {
  int64_t dimension = 0;
  int64_t parts = 1;  // of the dimension, equal ones, each of which ends in zeros: 2 where gate and up lie in one tensor
  int64_t size = 0;   // of the dimension with the zeros, divisible by `parts`
};

// Opens every shard's mapping; reads no tensor data until asked. Like transformers, model.safetensors goes before an index.
class Checkpoint {
 public:
  // `path` as resolve_model gives it: a folder, or what find_gguf_model (models/gguf/gguf_checkpoint.h) takes for a model. Errors: not
  // found (folder, config.json, weights, shards that the index names: all of them are listed), corruption (a shard, the index, a tensor
  // in two shards, a tensor that the index names and no shard has), unsupported (weights in another file format); those of
  // GgufCheckpoint.
  explicit Checkpoint(const std::filesystem::path& path);

  // The GGUF file where the weights are in one.
  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const { return config_; }  // config.json as it is; of a GGUF file as GgufCheckpoint makes it
  // Null for a folder of safetensors files.
  const GgufCheckpoint* gguf() const { return gguf_.get(); }

  bool contains(const std::string& name) const { return location_.contains(name); }
  std::vector<std::string> names() const;  // sorted
  // Errors: not found, with the nearest existing names.
  const TensorInfo& info(const std::string& name) const;
  // The file that holds the tensor. Errors: as info().
  const std::filesystem::path& file_of(const std::string& name) const;
  // The stored tensor: a view of the mapping, see SafetensorsFile::view. Of a GGUF file its values, in memory of their own.
  at::Tensor view(const std::string& name) const;
  // A checked copy: expected shape, converted to `dtype`, on `device`. Floating-point data is converted between floating-point
  // dtypes only, integers between integers. NaN and Inf, stored or from a conversion to a narrower range, are refused by name, flat
  // index and value. The mapping's pages are released afterwards. Errors: not found, corruption.
  at::Tensor load(const std::string& name, const std::vector<int64_t>& expected_shape, at::ScalarType dtype,
                  at::Device device = at::kCPU) const;
  // Element `index` of the first dimension of a tensor of several matrices, checked and converted as load() does; without that dimension.
  at::Tensor load_part(const std::string& name, const std::vector<int64_t>& expected_shape, int64_t index, at::ScalarType dtype) const;
  // Lets go of the mapped pages that a view of this tensor has brought into memory.
  void release(const std::string& name) const;
  uint64_t total_bytes() const;  // of all tensors on disk
  // From here on these tensors are shown larger, in their shapes and values, and `config` in the place of config.json. Once. Errors: as
  // info(); invalid argument for a GGUF file.
  void pad(std::map<std::string, TensorPadding> tensors, Json config);

 private:
  at::Tensor copy_checked(const std::string& name, const std::vector<int64_t>& expected_shape, std::optional<int64_t> part, at::ScalarType dtype) const;
  at::Tensor stored_view(const std::string& name) const;  // without padding
  // Into files_. Errors: as info().
  size_t location_of(const std::string& name) const;

  std::filesystem::path folder_;
  Json config_;
  std::vector<SafetensorsFile> files_;
  std::shared_ptr<const GgufCheckpoint> gguf_;
  struct Padded {
    TensorPadding padding;
    TensorInfo info;  // with the shape as shown
  };
  std::map<std::string, Padded> padded_;
  std::map<std::string, size_t> location_;  // tensor name -> index in files_; of a GGUF file 0
};

}  // namespace salient::models
