#include "common/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/error.h"
#include "common/temporary_file.h"

namespace salient {
namespace fs = std::filesystem;
namespace {

bool is_same_file(int descriptor, const fs::path& path) {
  struct stat held {};
  struct stat named {};
  return ::fstat(descriptor, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

// A descriptor of the folder that holds its lock; -1 when `operation` does not wait and somebody else has it. `must`: a file system
// without locks is an error.
int open_locked(const fs::path& folder, int operation, bool must) {
  while (true) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) fail_errno(folder, "open the folder", errno);
    int error = 0;
    do error = ::flock(descriptor, operation) == 0 ? 0 : errno;
    while (error == EINTR);
    // Whoever had the lock may have renamed the folder: what is locked now would be another one than `folder`.
    const bool same = is_same_file(descriptor, folder);
    if ((error == 0 && same) || (error != 0 && error != EWOULDBLOCK && !must)) return descriptor;
    ::close(descriptor);
    if (error == EWOULDBLOCK) return -1;
    if (error != 0) fail_errno(folder, "lock the folder", error);
  }
}

}  // namespace

void fail_errno(const fs::path& path, std::string_view action, int error) {
  if (error == ENOENT || error == ENOTDIR) fail(ErrorKind::kNotFound, "{}: no such file or folder", path.string());
  if (error == ENOSPC || error == EDQUOT) {
    throw Error(ErrorKind::kIo, fmt::format("{}: cannot {}: the disk is full", path.string(), action))
        .with_code("DISK_FULL")
        .with_hint("free some space or choose another output folder; the work done so far is kept and the same command goes on");
  }
  fail(ErrorKind::kIo, "{}: cannot {}: {}", path.string(), action, std::strerror(error));
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_errno(path, "open", errno);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int error = errno;
    ::close(descriptor);
    if (S_ISDIR(status.st_mode)) fail(ErrorKind::kInvalidArgument, "{}: is a folder, expected a file", path.string());
    fail_errno(path, "read", error);
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const int error = errno;
    ::close(descriptor);
    if (mapped == MAP_FAILED) fail_errno(path, "map", error);
    data_ = static_cast<const std::byte*>(mapped);
  } else {
    ::close(descriptor);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void MappedFile::release(size_t offset, size_t length) const {
  if (data_ == nullptr || offset >= size_) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;  // whole pages inside the range only
  const size_t end = std::min(offset + length, size_) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_text_file(const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  const fs::path folder = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) fail_errno(folder, "create the folder", code.value());
  TemporaryFile made = make_temporary_file(target_);
  temporary_ = std::move(made.path);
  descriptor_ = made.descriptor;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::unlink(temporary_.c_str());  // while it is locked: afterwards it may be another writer's
  ::close(descriptor_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_errno(target_, fmt::format("write {} bytes", bytes.size()), errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_errno(target_, "flush", errno);
  // Some file systems tell what went wrong only when a file is closed. The copy keeps the lock until the name is given.
  const int lock = ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0);
  const bool closed = ::close(std::exchange(descriptor_, lock)) == 0;
  if (!closed || ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    if (lock >= 0) ::close(std::exchange(descriptor_, -1));
    fail_errno(target_, closed ? "rename to" : "write", error);
  }
  if (lock >= 0) ::close(std::exchange(descriptor_, -1));
  sync_folder(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

FolderLock::FolderLock(const fs::path& folder) : folder_(folder), descriptor_(open_locked(folder, LOCK_EX, /*must=*/true)) {}

std::optional<FolderLock> FolderLock::try_lock(const fs::path& folder) {
  const int descriptor = open_locked(folder, LOCK_EX | LOCK_NB, /*must=*/false);
  if (descriptor < 0) return std::nullopt;
  return FolderLock(folder, descriptor);
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : folder_(std::move(other.folder_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_errno(folder, "open", errno);
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  // Some file systems refuse to flush a folder (EINVAL and others); the rename itself is still atomic there.
  if (error == EIO || error == ENOSPC || error == EDQUOT) fail_errno(folder, "flush the folder", error);
}

uint64_t free_disk_bytes(const fs::path& path) {
  fs::path probe = fs::absolute(path);
  while (!fs::exists(probe) && probe.has_parent_path() && probe != probe.parent_path()) probe = probe.parent_path();
  std::error_code code;
  const fs::space_info space = fs::space(probe, code);
  if (code) fail_errno(probe, "ask for the free space", code.value());
  return space.available;
}

}  // namespace salient
