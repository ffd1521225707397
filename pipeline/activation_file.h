// Hidden states of all calibration tokens, in a file: a float32 tensor of which only a batch of rows is in memory at a time. Read
// and written, not mapped, so that it never counts as this process's memory; the system's page cache keeps what it can.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

namespace salient::pipeline {

class ActivationFile {
 public:
  // A new file of zeros; what had the name is replaced. `first_row`: where the file holds a part of the rows, the number of its
  // first one; rows keep their numbers. Errors: io (code DISK_FULL).
  static ActivationFile create(const std::filesystem::path& path, std::vector<int64_t> shape, int64_t first_row = 0);
  // Errors: io; corruption when the file has another size.
  static ActivationFile open(const std::filesystem::path& path, std::vector<int64_t> shape, int64_t first_row = 0);
  ~ActivationFile();
  ActivationFile(ActivationFile&& other) noexcept;
  ActivationFile& operator=(ActivationFile&& other) noexcept;

  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t first_row() const { return first_row_; }
  int64_t size(int64_t dimension) const { return shape_[static_cast<size_t>(dimension)]; }
  // Rows [begin, begin + count) of the first dimension, float32 on the CPU.
  at::Tensor read(int64_t begin, int64_t count) const;
  void write(int64_t begin, const at::Tensor& rows);
  void sync() const;

 private:
  ActivationFile(std::filesystem::path path, std::vector<int64_t> shape, int64_t first_row, int file)
      : path_(std::move(path)), shape_(std::move(shape)), first_row_(first_row), file_(file) {}
  int64_t row_elements() const;

  std::filesystem::path path_;
  std::vector<int64_t> shape_;
  int64_t first_row_ = 0;
  int file_ = -1;
};

// Rows [begin, begin + count) of hidden states, float32 on the CPU, wherever they lie.
using RowReader = std::function<at::Tensor(int64_t begin, int64_t count)>;
// `file` must outlive it.
inline RowReader reader_of(const ActivationFile& file) {
  return [&file](int64_t begin, int64_t count) { return file.read(begin, count); };
}

}  // namespace salient::pipeline
