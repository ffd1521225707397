// Tensors whose bytes lie in a file without a name, so that weights which had to be converted do not count against memory: the
// kernel writes their pages out when it needs room.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace salient::models {

class ScratchFile {
 public:
  // A file in `folder`, removed from it at once: nothing is left behind however the process ends. Errors: io.
  explicit ScratchFile(const std::filesystem::path& folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // A tensor to be filled, of zeros; it may outlive this object. Disk space is reserved now, so that filling it cannot fail.
  // Tensors of less than 64 KiB lie in memory. Errors: io (a full disk).
  at::Tensor make(const std::vector<int64_t>& sizes, at::ScalarType dtype);
  // A copy of `tensor` made by make(), or `tensor` itself, made contiguous, where it is small.
  at::Tensor keep(const at::Tensor& tensor);

 private:
  std::filesystem::path folder_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// Takes the pages of a tensor of make() out of the process's memory; they come back when touched.
void release_pages(const at::Tensor& tensor);

}  // namespace salient::models
