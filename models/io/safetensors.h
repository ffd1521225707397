// The safetensors file format: https://github.com/huggingface/safetensors#format
//
//   file   = length header data
//   length = u64 little-endian, bytes of the header (at most 100,000,000, as in the reference implementation)
//   header = JSON object, first byte '{', padded with spaces: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin,
//   end]}, ...};
//            offsets count from the first byte of data; "__metadata__" maps strings to strings
//   data   = the tensors, row-major, little-endian, without holes or overlap, up to the last byte of the file
//
// Example: one F32 tensor "a" of shape [2] is  3C 00 00 00 00 00 00 00  {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}...
// and 8 bytes.
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

// One memory-mapped file. The header is checked completely when opened. Errors, which name the file, the tensor and both numbers:
// corruption for a truncated file, an oversized header, malformed JSON, duplicate names, overlapping, out-of-bounds or missing data
// (holes, trailing bytes), a size that does not fit shape x dtype; unsupported for a dtype that the format has and this program has
// not (F8, F4).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // "__metadata__"
  const std::filesystem::path& path() const { return file_->path(); }

  // Errors: not found.
  const TensorInfo& info(const std::string& name) const;
  // A view of the mapped bytes, on the CPU, in the stored dtype; it keeps the mapping alive and must not be written to (the pages
  // are read-only: the process dies). Data that is not aligned to its dtype is copied. Errors: not found.
  at::Tensor view(const std::string& name) const;
  // Lets the kernel drop the tensor's pages (they are read again when touched). Errors: not found.
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

// Writes one file atomically, tensors in the given order; the data starts at a multiple of 64 bytes and has no holes, as the format
// wants, so later tensors are aligned as far as the sizes before them are. Metadata {"format": "pt"} is added. Errors: those of
// make_safetensors_header, io.
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// "F32", "BF16", ... Errors: unsupported, with the list of those that are there.
std::string safetensors_dtype_name(at::ScalarType dtype);
at::ScalarType parse_safetensors_dtype(const std::string& name);

}  // namespace salient::models
