#include "models/torchscript/scratch_file.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace {

constexpr uint64_t kSmallBytes = uint64_t{64} << 10;
constexpr uint64_t kPage = 4096;

uint64_t rounded(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

ScratchFile::ScratchFile(const std::filesystem::path& folder) : folder_(folder.empty() ? std::filesystem::path(".") : folder) {
  descriptor_ = ::open(folder_.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (descriptor_ >= 0) return;
  // A file system that has no files without a name.
  std::string name = (folder_ / ".salient-scratch-XXXXXX").string();
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail_errno(folder_, "make a temporary file in", errno);
  ::unlink(name.c_str());
}

ScratchFile::~ScratchFile() { ::close(descriptor_); }

at::Tensor ScratchFile::make(const std::vector<int64_t>& sizes, at::ScalarType dtype) {
  uint64_t bytes = c10::elementSize(dtype);
  for (const int64_t size : sizes) bytes *= static_cast<uint64_t>(size);
  if (bytes < kSmallBytes) return at::zeros(sizes, at::TensorOptions(dtype));
  const uint64_t unit = std::max(kPage, static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  const uint64_t begin = rounded(size_, unit);
  if (const int error = ::posix_fallocate(descriptor_, static_cast<off_t>(begin), static_cast<off_t>(bytes)); error != 0)
    fail_errno(folder_, fmt::format("reserve {} bytes of scratch space in", bytes), error);
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, static_cast<off_t>(begin));
  if (data == MAP_FAILED) fail_errno(folder_, "map scratch space in", errno);
  size_ = begin + bytes;
  return at::from_blob(
      data, sizes, [bytes](void* mapped) { ::munmap(mapped, bytes); }, at::TensorOptions(dtype));
}

at::Tensor ScratchFile::keep(const at::Tensor& tensor) {
  if (tensor.nbytes() < kSmallBytes) return tensor.contiguous();
  at::Tensor kept = make(tensor.sizes().vec(), tensor.scalar_type());
  kept.copy_(tensor);
  release_pages(kept);
  return kept;
}

void release_pages(const at::Tensor& tensor) {
  if (tensor.nbytes() < kSmallBytes) return;
  // A shared mapping: its content stays in the file.
  ::madvise(tensor.data_ptr(), tensor.nbytes(), MADV_DONTNEED);
}

}  // namespace salient::models
