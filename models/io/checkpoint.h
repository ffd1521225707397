// A Hugging Face checkpoint folder: config.json, and one safetensors file or several with model.safetensors.index.json. Or in a
// checkpoint's place a GGUF file (models/gguf/gguf_checkpoint.h), or a LoRA adapter, shown as its base with the adapter merged
// (models/io/adapter.h): tensor by tensor as they are read, so that no more than one is held.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/io/safetensors.h"

namespace salient::models {

class GgufCheckpoint;

// What is shown in the place of a stored tensor, as if it stood in the file.
struct TensorChange {
  std::vector<int64_t> shape;  // as shown
  // `before`: what stood there, of the whole tensor, or with `part` one element of its first dimension; not to be written to.
  // Returns what is shown for it, in memory of its own, in the stored dtype or in float32, which is then rounded once, to what the
  // reader wants.
  std::function<at::Tensor(const at::Tensor& before, bool part)> apply;
  std::string what;  // opens errors about values that come of it: "merged with lora/adapter_model.safetensors"
};

// Opens every shard's mapping; reads no tensor data until asked. Like transformers, model.safetensors goes before an index.
class Checkpoint {
 public:
  // `path` as resolve_model gives it: a folder, or what find_gguf_model (models/gguf/gguf_checkpoint.h) takes for a model. Errors:
  // not found (folder, config.json, weights, shards that the index names: all of them are listed), corruption (a shard, the index,
  // a tensor in two shards, a tensor that the index names and no shard has), unsupported (weights in another file format); those of
  // GgufCheckpoint and of merge_adapter (models/io/merge_adapter.h).
  explicit Checkpoint(const std::filesystem::path& path);

  // The GGUF file where the weights are in one; the adapter's folder, not its base's. Files beside the weights:
  // models/io/model_files.h.
  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const { return config_; }  // config.json as it is; of a GGUF file as GgufCheckpoint makes it; or as changed
  // Null for a folder of safetensors files.
  const GgufCheckpoint* gguf() const { return gguf_.get(); }

  bool contains(const std::string& name) const { return places_.contains(name); }
  std::vector<std::string> names() const;  // sorted
  // Errors: not found, with the nearest existing names.
  const TensorInfo& info(const std::string& name) const;
  // The file that holds the tensor. Errors: as info().
  const std::filesystem::path& file_of(const std::string& name) const;
  // The stored tensor: a view of the mapping, see SafetensorsFile::view. Of a GGUF file, and where a change is shown, its values in
  // memory of their own, in the dtype of info().
  at::Tensor view(const std::string& name) const;
  // A checked copy: expected shape, converted to `dtype`, on `device`. Floating-point data is converted between floating-point
  // dtypes only, integers between integers. NaN and Inf, stored or from a conversion to a narrower range, are refused by name, flat
  // index and value. The mapping's pages are released afterwards. Errors: not found, corruption.
  at::Tensor load(const std::string& name, const std::vector<int64_t>& expected_shape, at::ScalarType dtype,
                  at::Device device = at::kCPU) const;
  // Element `index` of the first dimension of a tensor of several matrices, checked and converted as load() does; without that
  // dimension.
  at::Tensor load_part(const std::string& name, const std::vector<int64_t>& expected_shape, int64_t index,
                       at::ScalarType dtype) const;
  // Lets go of the mapped pages that a view of this tensor has brought into memory.
  void release(const std::string& name) const;
  uint64_t total_bytes() const;  // of all tensors, as they are on disk

  // The following change what is shown, from here on. Errors of all: as info(); invalid argument for a GGUF file.
  //
  // These tensors through their changes, on top of earlier ones, and `config` in the place of config.json.
  void change(std::map<std::string, TensorChange> tensors, Json config);
  // Opens a further file, of which nothing is shown by itself; its number, for show().
  size_t add_file(const std::filesystem::path& path);
  // Tensor `stored` of a file under `name`, in the place of one that is there, or as one more.
  void show(const std::string& name, size_t file, const std::string& stored);
  // The same, of the tensor that stands in a file where `original` is shown.
  void show_original(const std::string& name, const std::string& original);

 private:
  struct Place {
    size_t file = 0;     // in files_; of a GGUF file 0
    std::string stored;  // name in it
  };
  struct Changed {
    TensorInfo info;  // as shown
    std::vector<TensorChange> changes;
  };

  void open_folder(const std::filesystem::path& folder);
  at::Tensor copy_checked(const std::string& name, const std::vector<int64_t>& expected_shape, std::optional<int64_t> part,
                          at::ScalarType dtype) const;
  at::Tensor stored_view(const std::string& name) const;  // without changes
  // Errors: as info().
  const Place& place_of(const std::string& name) const;

  std::filesystem::path folder_;
  Json config_;
  std::vector<SafetensorsFile> files_;
  std::shared_ptr<const GgufCheckpoint> gguf_;
  std::map<std::string, Changed> changed_;
  std::map<std::string, Place> places_;
};

}  // namespace salient::models
