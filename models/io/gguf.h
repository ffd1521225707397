// Reads GGUF files through a mapping. The format: models/io/gguf_header.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>

#include "common/file.h"
#include "models/io/gguf_header.h"

namespace salient::models {

// One memory-mapped file, checked completely when opened, without touching the data. Errors, which name the file and the tensor:
// those of parse_gguf_header; corruption for rows that are no multiple of the block, offsets that are not the sum of the padded
// sizes before them (holes, overlap, another order), data that end before or go on after the tensors; unsupported for tensor types
// that are not known.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const GgufHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return file_->path(); }

  // Null when there is no such tensor.
  const GgufTensor* find(const std::string& name) const;
  // Errors: not found.
  const GgufTensor& tensor(const std::string& name) const;
  // The stored bytes: uint8 [rows, bytes of a row], rows over all dimensions but the last. A view of the mapped file, on the CPU;
  // it keeps the mapping alive and must not be written to (the pages are read-only: the process dies). Errors: not found.
  at::Tensor view(const std::string& name) const;
  // The values: float32, of the tensor's shape, memory of its own. Errors: not found; unsupported for types that cannot be
  // dequantized here.
  at::Tensor read(const std::string& name) const;
  // Lets the kernel drop the tensor's pages (they are read again when touched). Errors: not found.
  void release(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  GgufHeader header_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace salient::models
