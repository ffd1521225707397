// The safetensors file format: 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}},
// then the data. https://github.com/huggingface/safetensors#format
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/file.h"

namespace salient::models {

struct TensorInfo {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the start of the file
  uint64_t end = 0;
  uint64_t bytes() const { return end - begin; }
};

// One memory-mapped file. The header is checked completely when opened: errors of kind corruption name the file, the tensor and both
// numbers for a truncated file, an oversized header, overlapping or out-of-bounds offsets, a size that does not fit shape x dtype,
// duplicate names, an unknown dtype (unsupported).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // "__metadata__"
  const std::filesystem::path& path() const { return file_->path(); }

  // A view of the mapped bytes, in the stored dtype; it keeps the mapping alive and must not be written to. Misaligned data is copied.
  at::Tensor view(const std::string& name) const;
  // Lets the kernel drop the tensor's pages (they are read again when touched).
  void release(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  // any dtype of the format, on the CPU
};

// Writes one file atomically, tensors in the given order, data aligned to 64 bytes; metadata {"format": "pt"} is added.
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// "F32", "BF16", ... Errors: unsupported.
std::string safetensors_dtype_name(at::ScalarType dtype);
at::ScalarType parse_safetensors_dtype(const std::string& name);

}  // namespace salient::models
