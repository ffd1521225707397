// Files: memory-mapped reading, and writing in which a file appears whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace salient {

// A read-only mapping of a whole file. Movable; unmaps when destroyed. Safe to read from many threads.
class MappedFile {
 public:
  // Errors: not found, io. An empty file maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Tells the kernel that [offset, offset + length) will not be needed soon, so that its pages stop counting as resident.
  void release(size_t offset, size_t length) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole file as a string. Errors: not found, io.
std::string read_text_file(const std::filesystem::path& path);

// A file being written under a temporary name beside its target. commit() flushes it to disk, renames it over the target and
// flushes the folder; a writer destroyed before commit() removes the temporary file. Call order: write* commit.
class AtomicFile {
 public:
  // Creates missing parent folders. Errors: io.
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Errors: io; a full disk says how many bytes were wanted and how many are free.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

// AtomicFile in one call.
void write_file(const std::filesystem::path& path, std::string_view text);

// An exclusive lock on a folder, advisory: it keeps away only those who ask for it. It ends with the object, or with the process
// however that dies, and leaves no file behind. A second one on the same folder waits or is refused in the same process too.
class FolderLock {
 public:
  // Waits until nobody else holds it. Errors: not found, io (also where the file system has no locks).
  explicit FolderLock(const std::filesystem::path& folder);
  // Nothing when somebody else holds it. Where the file system has no locks, the one returned keeps nobody away. Errors: not found,
  // io.
  static std::optional<FolderLock> try_lock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&&) = delete;
  FolderLock(const FolderLock&) = delete;

  const std::filesystem::path& folder() const { return folder_; }

 private:
  FolderLock(std::filesystem::path folder, int descriptor) : folder_(std::move(folder)), descriptor_(descriptor) {}

  std::filesystem::path folder_;
  int descriptor_ = -1;
};

// Flushes a folder's entries to disk, so that a rename in it survives a power cut. Errors: io.
void sync_folder(const std::filesystem::path& folder);

// Throws what a failed system call on `path` means: not found, or io (with code DISK_FULL for a full disk). `action` completes
// "cannot ...", `error` is errno.
[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view action, int error);

// Bytes of disk that an ordinary user can still write where `path` (or its nearest existing parent) lies. Errors: io.
uint64_t free_disk_bytes(const std::filesystem::path& path);

}  // namespace salient
