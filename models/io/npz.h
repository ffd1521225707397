// NumPy's .npz format: a zip archive (APPNOTE.TXT of PKWARE) whose members "<name>.npy" are arrays (models/io/npy.h), stored as
// np.savez writes them or deflated as np.savez_compressed does. Zip64, so that arrays of more than 4 GiB work. minizip, the archive
// code of zlib's authors, stays in npz.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/io/npy.h"

namespace salient::models {

// An open archive; arrays are read one at a time, so that only what is asked for is in memory. Not to be used by several threads at
// once.
class NpzFile {
 public:
  // Reads the list of members. Errors: not found; corruption for what is no zip archive, a truncated one, two members of one name.
  explicit NpzFile(const std::filesystem::path& path);
  ~NpzFile();
  NpzFile(NpzFile&&) noexcept;
  NpzFile& operator=(NpzFile&&) = delete;

  const std::filesystem::path& path() const;
  // In the order of the file, without ".npy". Members that are no .npy files are left out.
  const std::vector<std::string>& names() const;
  bool contains(const std::string& name) const;
  // Bytes that the member takes in the archive.
  uint64_t stored_bytes(const std::string& name) const;

  // Dtype and shape without the data. Errors as those of read().
  NpyHeader header(const std::string& name) const;
  // The array, C-contiguous, memory of its own. Errors: not found, with the nearest name; corruption for a wrong checksum, sizes
  // that do not fit each other (nothing is allocated before they do), a broken header; unsupported for encrypted members, other
  // methods than stored and deflated, and dtypes (parse_npy_header).
  at::Tensor read(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Writes an archive array by array, under a temporary name until commit(). Members carry the date 1980-01-01 as NumPy's do: the
// same arrays, the same bytes. Call order: add* commit.
class NpzWriter {
 public:
  // compressed: np.savez_compressed, else np.savez. Creates missing parent folders. Errors: io.
  explicit NpzWriter(std::filesystem::path path, bool compressed = false);
  ~NpzWriter();  // without commit(): removes the temporary file
  NpzWriter(const NpzWriter&) = delete;
  NpzWriter& operator=(const NpzWriter&) = delete;

  // Errors: invalid argument for a name that is empty, repeated or longer than 65,000 bytes; unsupported dtype; io.
  void add(const std::string& name, const at::Tensor& array);
  // Errors: io.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace salient::models
