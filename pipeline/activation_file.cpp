#include "pipeline/activation_file.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "common/error.h"
#include "common/file.h"

namespace salient::pipeline {
namespace {

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

}  // namespace

ActivationFile ActivationFile::create(const std::filesystem::path& path, std::vector<int64_t> shape, int64_t first_row) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) fail_errno(path, "create", errno);
  ActivationFile created(path, std::move(shape), first_row, file);
  // Reserved at once: a disk that is too full says so now, not in the middle of a block.
  const int64_t bytes = elements(created.shape_) * 4;
  int error = 0;
  do error = bytes > 0 ? ::posix_fallocate(file, 0, bytes) : 0;  // which refuses 0
  while (error == EINTR);
  if (error != 0) fail_errno(path, "reserve space for hidden states in", error);
  return created;
}

ActivationFile ActivationFile::open(const std::filesystem::path& path, std::vector<int64_t> shape, int64_t first_row) {
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) fail_errno(path, "open", errno);
  ActivationFile opened(path, std::move(shape), first_row, file);
  struct stat status {};
  if (::fstat(file, &status) != 0) fail_errno(path, "examine", errno);
  if (status.st_size != elements(opened.shape_) * 4) {
    fail(ErrorKind::kCorruption, "{}: has {} bytes, expected {} for hidden states of [{}]", path.string(), status.st_size,
         elements(opened.shape_) * 4, fmt::join(opened.shape_, ", "));
  }
  return opened;
}

ActivationFile::~ActivationFile() {
  if (file_ >= 0) ::close(file_);
}

ActivationFile::ActivationFile(ActivationFile&& other) noexcept
    : path_(std::move(other.path_)),
      shape_(std::move(other.shape_)),
      first_row_(other.first_row_),
      file_(std::exchange(other.file_, -1)) {}

ActivationFile& ActivationFile::operator=(ActivationFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(shape_, other.shape_);
  std::swap(first_row_, other.first_row_);
  std::swap(file_, other.file_);
  return *this;
}

int64_t ActivationFile::row_elements() const { return elements(shape_) / std::max<int64_t>(1, shape_.front()); }

at::Tensor ActivationFile::read(int64_t begin, int64_t count) const {
  std::vector<int64_t> shape = shape_;
  shape.front() = count;
  at::Tensor rows = at::empty(shape, at::kFloat);
  auto* data = static_cast<char*>(rows.data_ptr());
  auto left = static_cast<size_t>(rows.nbytes());
  off_t offset = (begin - first_row_) * row_elements() * 4;
  while (left > 0) {
    const ssize_t got = ::pread(file_, data, left, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno(path_, "read", errno);
    if (got == 0) fail(ErrorKind::kCorruption, "{}: ends before row {}", path_.string(), begin + count);
    data += got;
    left -= static_cast<size_t>(got);
    offset += got;
  }
  return rows;
}

void ActivationFile::write(int64_t begin, const at::Tensor& rows) {
  const at::Tensor data = rows.to(at::kCPU, at::kFloat).contiguous();
  const int64_t count = data.numel() / row_elements();
  if (data.numel() != count * row_elements() || begin < first_row_ || begin + count > first_row_ + shape_.front()) {
    fail(ErrorKind::kInternal, "{}: {} values at row {} are no rows of [{}] from row {} on", path_.string(), data.numel(), begin,
         fmt::join(shape_, ", "), first_row_);
  }
  const auto* bytes = static_cast<const char*>(data.const_data_ptr());
  auto left = static_cast<size_t>(data.nbytes());
  off_t offset = (begin - first_row_) * row_elements() * 4;
  while (left > 0) {
    const ssize_t put = ::pwrite(file_, bytes, left, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_errno(path_, "write", errno);
    bytes += put;
    left -= static_cast<size_t>(put);
    offset += put;
  }
}

void ActivationFile::sync() const {
  if (::fdatasync(file_) != 0) fail_errno(path_, "flush", errno);
}

}  // namespace salient::pipeline
