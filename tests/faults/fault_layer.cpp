// SALIENT_FAULT_FOLDERS=/a:/b  Folders below which operations on files count; those elsewhere pass through.
// SALIENT_FAULT=KIND:N:ACTION  What happens to operation N, from 0, of a kind: one of kKindNames below.
//   EIO, ENOSPC, ...  it is not done and fails with this error; of memory there is none
//   ENOSPC+           so do all later ones, those of `write` and `resize` together: a disk that is full and stays full
//   short             half of it is done, and it says so: reading and writing
//   torn              half of it is done, then the process is killed: writing
//   kill              it is done, then the process is killed
//   power             it is done, then the process is killed, and what was written to files and not flushed reads as zeros: what a
//                     loss of power may leave
// SALIENT_FAULT_MEMORY=BYTES   From which size on an allocation is one of `memory`, default 65536; those of all sizes are
//                              `allocation`.
// SALIENT_FAULT_REPORT=FILE    Is written when the fault strikes and at the end: "KIND COUNT" of each, "fired OPERATION PATH".
//
// What is not seen: a page of a mapped file that cannot be read, which would be a signal and no error; what libc does inside of
// itself, such as listing a folder (opening it is seen).
#include "faults/fault_layer.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace salient::test {
namespace {

enum Kind { kOpen, kRead, kMap, kWrite, kSync, kRename, kRemove, kMkdir, kResize, kLock, kClose, kMemory, kAllocation, kKinds };
constexpr const char* kKindNames[kKinds] = {"open",  "read",   "map",  "write", "sync",   "rename",    "remove",
                                            "mkdir", "resize", "lock", "close", "memory", "allocation"};

enum class Action { kNone, kFail, kFailFromHereOn, kShort, kTorn, kKill, kPower };

constexpr struct {
  const char* name;
  int number;
} kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EINTR", EINTR},   {"EACCES", EACCES}, {"EROFS", EROFS},
               {"ENOMEM", ENOMEM}, {"EDQUOT", EDQUOT}, {"EMFILE", EMFILE}, {"ENOLCK", ENOLCK}};

constexpr size_t kPathBytes = 4096;
constexpr int kMostFolders = 8;
constexpr int kMostUnflushed = 1 << 16;

using Path = char[kPathBytes];

// A part of a file that was written and not flushed yet. The descriptor is our own: the program may have closed its own by then.
struct Unflushed {
  dev_t device;
  ino_t inode;
  int descriptor;
  off_t offset;
  off_t length;
};

// Of the whole process; nothing in it needs a constructor, as the first allocations come before any has run.
struct {
  std::atomic<bool> armed;
  Path folders[kMostFolders];
  int folder_count;
  Path report;
  int kind;
  long index;
  Action action;
  int error;
  size_t memory_bytes;
  std::atomic<long> counts[kKinds];
  std::atomic<bool> fired;
  char fired_at[kPathBytes + 64];
  pthread_mutex_t mutex;
  Unflushed unflushed[kMostUnflushed];
  int unflushed_count;
} layer;

// What the layer itself does is not counted.
thread_local bool inside __attribute__((tls_model("initial-exec")));

struct Inside {
  bool before = inside;
  int error = errno;
  Inside() { inside = true; }
  ~Inside() {
    inside = before;
    errno = error;
  }
};

template <typename Function>
Function real(const char* name, Function& found) {
  if (found == nullptr) {
    const Inside scope;
    found = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
  }
  return found;
}

// libc's own function of this name.
#define REAL(name)                                      \
  ([]() -> decltype(&::name) {                          \
    static constinit decltype(&::name) found = nullptr; \
    return ::salient::test::real(#name, found);         \
  }())

// ---- what is watched ----

bool is_watched(const char* path) {
  for (int i = 0; i < layer.folder_count; ++i) {
    const size_t length = std::strlen(layer.folders[i]);
    if (std::strncmp(path, layer.folders[i], length) == 0 && (path[length] == '/' || path[length] == '\0')) return true;
  }
  return false;
}

bool path_of(int descriptor, Path& path) {
  char link[64];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = ::readlink(link, path, kPathBytes - 1);
  path[length < 0 ? 0 : length] = '\0';
  return length >= 0;
}

bool counts() { return layer.armed.load(std::memory_order_relaxed) && !inside; }

bool watched_descriptor(int descriptor, Path& path) {
  if (!counts()) return false;
  const Inside scope;
  return path_of(descriptor, path) && is_watched(path);
}

// `folder`: what a relative path starts from, as in openat. Links and ".." are taken as they are written.
bool watched_path(int folder, const char* given, Path& path) {
  if (!counts() || given == nullptr) return false;
  const Inside scope;
  path[0] = '\0';
  if (given[0] != '/') {
    if (folder == AT_FDCWD) {
      if (::getcwd(path, kPathBytes - 1) == nullptr) return false;
    } else if (!path_of(folder, path)) {
      return false;
    }
    std::strncat(path, "/", kPathBytes - 1 - std::strlen(path));
  }
  std::strncat(path, given, kPathBytes - 1 - std::strlen(path));
  return is_watched(path);
}

// ---- what happens ----

void write_report() {
  if (!layer.armed || layer.report[0] == '\0') return;
  const Inside scope;
  char text[kPathBytes + 2048];
  size_t length = 0;
  for (int kind = 0; kind < kKinds; ++kind) {
    length += static_cast<size_t>(
        std::snprintf(text + length, sizeof text - length, "%s %ld\n", kKindNames[kind], layer.counts[kind].load()));
  }
  if (layer.fired) length += static_cast<size_t>(std::snprintf(text + length, sizeof text - length, "fired %s\n", layer.fired_at));
  const int file = REAL(open)(layer.report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written = REAL(write)(file, text, length);
  REAL(close)(file);
}

void lose_what_was_not_flushed() {
  static const char zeros[1 << 16] = {};
  for (int i = 0; i < layer.unflushed_count; ++i) {
    const Unflushed& part = layer.unflushed[i];
    struct stat status {};
    if (::fstat(part.descriptor, &status) != 0) continue;
    const off_t end = part.offset + part.length < status.st_size ? part.offset + part.length : status.st_size;
    for (off_t at = part.offset; at < end;) {
      const auto left = static_cast<size_t>(end - at);
      const ssize_t done = REAL(pwrite)(part.descriptor, zeros, left < sizeof zeros ? left : sizeof zeros, at);
      if (done <= 0) break;
      at += done;
    }
  }
}

[[noreturn]] void die() {
  const Inside scope;
  if (layer.action == Action::kPower) lose_what_was_not_flushed();
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

// Counts an operation and says what is to become of it: kFail means with the error that was chosen.
Action strike(Kind kind, const char* operation, const char* path) {
  const long number = layer.counts[kind].fetch_add(1);
  const bool takes_room = (kind == kWrite || kind == kResize) && (layer.kind == kWrite || layer.kind == kResize);
  if (layer.action == Action::kFailFromHereOn && layer.fired && (kind == layer.kind || takes_room)) return Action::kFail;
  if (kind != layer.kind || number != layer.index) return Action::kNone;
  std::snprintf(layer.fired_at, sizeof layer.fired_at, "%s %s", operation, path);
  layer.fired = true;
  write_report();  // now: it may end in a way that leaves no time for it
  return layer.action == Action::kFailFromHereOn ? Action::kFail : layer.action;
}

bool kills(Action action) { return action == Action::kKill || action == Action::kPower || action == Action::kTorn; }

// An operation that is done or not; `failure` is what it returns then.
template <typename Result, typename Call>
Result whole(Kind kind, const char* operation, const char* path, Result failure, const Call& call) {
  const Action action = strike(kind, operation, path);
  if (action == Action::kFail) {
    errno = layer.error;
    return failure;
  }
  const Result result = call();
  if (kills(action)) die();
  return result;
}

// An operation of `size` bytes that may do less, as `call(bytes)`. `written` is told of what was written.
template <typename Call, typename Written>
ssize_t partial(Kind kind, const char* operation, const char* path, size_t size, const Call& call, const Written& written) {
  const Action action = strike(kind, operation, path);
  if (action == Action::kFail) {
    errno = layer.error;
    return -1;
  }
  const bool half = (action == Action::kShort || action == Action::kTorn) && size > 1;
  const ssize_t result = call(half ? size / 2 : size);
  if (result > 0) written(result);
  if (kills(action)) die();
  return result;
}

constexpr auto kNothingWritten = [](ssize_t) {};

// ---- what was written and not flushed ----

void note_written(int descriptor, off_t offset, off_t length) {
  if (layer.action != Action::kPower) return;
  const Inside scope;
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return;
  ::pthread_mutex_lock(&layer.mutex);
  int own = -1;
  for (int i = 0; i < layer.unflushed_count && own < 0; ++i) {
    const Unflushed& part = layer.unflushed[i];
    if (part.inode == status.st_ino && part.device == status.st_dev) own = part.descriptor;
  }
  if (own < 0) {
    char link[64];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    own = REAL(open)(link, O_WRONLY | O_CLOEXEC);
  }
  if (layer.unflushed_count < kMostUnflushed) {
    layer.unflushed[layer.unflushed_count++] = {status.st_dev, status.st_ino, own, offset, length};
  }
  ::pthread_mutex_unlock(&layer.mutex);
}

void note_flushed(int descriptor) {
  if (layer.action != Action::kPower) return;
  const Inside scope;
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return;
  ::pthread_mutex_lock(&layer.mutex);
  int own = -1;
  int kept = 0;
  for (int i = 0; i < layer.unflushed_count; ++i) {
    const Unflushed part = layer.unflushed[i];
    if (part.inode == status.st_ino && part.device == status.st_dev) {
      own = part.descriptor;
    } else {
      layer.unflushed[kept++] = part;
    }
  }
  layer.unflushed_count = kept;
  if (own >= 0) REAL(close)(own);
  ::pthread_mutex_unlock(&layer.mutex);
}

// ---- memory ----

// The library that wants it: the first on the way up that is neither the layer nor one that allocates for others.
const char* asked_by() {
  void* frames[32];
  const int count = ::backtrace(frames, 32);
  Dl_info own{};
  ::dladdr(reinterpret_cast<void*>(&asked_by), &own);
  const char* found = "";
  for (int i = 0; i < count; ++i) {
    Dl_info frame{};
    if (::dladdr(frames[i], &frame) == 0 || frame.dli_fbase == own.dli_fbase) continue;
    const char* slash = std::strrchr(frame.dli_fname, '/');
    found = slash == nullptr ? frame.dli_fname : slash + 1;
    if (std::strncmp(found, "libc.", 5) != 0 && std::strncmp(found, "libstdc++", 9) != 0) break;
  }
  return found;
}

bool no_memory(size_t size) {
  if (!counts()) return false;
  const Inside scope;
  const bool chosen = (layer.kind == kAllocation && layer.counts[kAllocation] == layer.index) ||
                      (layer.kind == kMemory && size >= layer.memory_bytes && layer.counts[kMemory] == layer.index);
  char text[256] = "";
  if (chosen) std::snprintf(text, sizeof text, "%zu bytes for %s", size, asked_by());
  Action action = strike(kAllocation, "allocate", text);
  if (size >= layer.memory_bytes && action == Action::kNone) action = strike(kMemory, "allocate", text);
  if (kills(action)) die();
  return action == Action::kFail;
}

// ---- how it begins ----

void read_fault(const char* text) {
  Path copy;
  std::snprintf(copy, sizeof copy, "%s", text);
  char* rest = nullptr;
  const char* kind = ::strtok_r(copy, ":", &rest);
  const char* index = ::strtok_r(nullptr, ":", &rest);
  char* action = ::strtok_r(nullptr, ":", &rest);
  layer.kind = -1;
  for (int i = 0; i < kKinds && kind != nullptr; ++i) {
    if (std::strcmp(kind, kKindNames[i]) == 0) layer.kind = i;
  }
  if (layer.kind < 0 || action == nullptr) {
    std::fprintf(stderr, "SALIENT_FAULT=%s: expected KIND:N:ACTION\n", text);
    std::abort();
  }
  layer.index = std::atol(index);
  const size_t length = std::strlen(action);
  const bool from_here_on = action[length - 1] == '+';
  if (from_here_on) action[length - 1] = '\0';
  for (const auto& error : kErrors) {
    if (std::strcmp(action, error.name) != 0) continue;
    layer.error = error.number;
    layer.action = from_here_on ? Action::kFailFromHereOn : Action::kFail;
    return;
  }
  const bool is_short = std::strcmp(action, "short") == 0;
  const bool torn = std::strcmp(action, "torn") == 0;
  const bool power = std::strcmp(action, "power") == 0;
  if (!is_short && !torn && !power && std::strcmp(action, "kill") != 0) {
    std::fprintf(stderr, "SALIENT_FAULT=%s: no such action\n", text);
    std::abort();
  }
  layer.action = is_short ? Action::kShort : torn ? Action::kTorn : power ? Action::kPower : Action::kKill;
}

}  // namespace

void begin_faults() {
  const char* folders = std::getenv("SALIENT_FAULT_FOLDERS");
  if (folders == nullptr) return;
  Path copy;
  std::snprintf(copy, sizeof copy, "%s", folders);
  char* rest = nullptr;
  for (const char* folder = ::strtok_r(copy, ":", &rest); folder != nullptr && layer.folder_count < kMostFolders;
       folder = ::strtok_r(nullptr, ":", &rest)) {
    std::snprintf(layer.folders[layer.folder_count++], kPathBytes, "%s", folder);
  }
  if (const char* report = std::getenv("SALIENT_FAULT_REPORT")) std::snprintf(layer.report, kPathBytes, "%s", report);
  const char* memory = std::getenv("SALIENT_FAULT_MEMORY");
  layer.memory_bytes = memory == nullptr ? 65536 : static_cast<size_t>(std::atol(memory));
  layer.kind = -1;
  if (const char* fault = std::getenv("SALIENT_FAULT")) read_fault(fault);
  void* frame = nullptr;
  ::backtrace(&frame, 1);  // which allocates the first time
  std::atexit(write_report);
  layer.armed = true;
}

}  // namespace salient::test

// ---- libc's functions ----

using namespace salient::test;  // NOLINT: the functions below have libc's names

extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  Path full;
  const auto call = [&] { return REAL(open)(path, flags, mode); };
  return watched_path(AT_FDCWD, path, full) ? whole(kOpen, "open", full, -1, call) : call();
}
int open64(const char* path, int flags, ...) __attribute__((alias("open")));

int openat(int folder, const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  Path full;
  const auto call = [&] { return REAL(openat)(folder, path, flags, mode); };
  return watched_path(folder, path, full) ? whole(kOpen, "openat", full, -1, call) : call();
}
int openat64(int folder, const char* path, int flags, ...) __attribute__((alias("openat")));

FILE* fopen(const char* path, const char* mode) {
  Path full;
  const auto call = [&] { return REAL(fopen)(path, mode); };
  return watched_path(AT_FDCWD, path, full) ? whole(kOpen, "fopen", full, static_cast<FILE*>(nullptr), call) : call();
}
FILE* fopen64(const char* path, const char* mode) __attribute__((alias("fopen")));

int close(int descriptor) {
  Path full;
  const auto call = [&] { return REAL(close)(descriptor); };
  if (!watched_descriptor(descriptor, full)) return call();
  // It is closed whatever it says, as Linux does.
  return whole(kClose, "close", full, -1, call);
}

ssize_t read(int descriptor, void* bytes, size_t size) {
  Path full;
  const auto call = [&](size_t some) { return REAL(read)(descriptor, bytes, some); };
  return watched_descriptor(descriptor, full) ? partial(kRead, "read", full, size, call, kNothingWritten) : call(size);
}

ssize_t pread(int descriptor, void* bytes, size_t size, off_t offset) {
  Path full;
  const auto call = [&](size_t some) { return REAL(pread)(descriptor, bytes, some, offset); };
  return watched_descriptor(descriptor, full) ? partial(kRead, "pread", full, size, call, kNothingWritten) : call(size);
}
ssize_t pread64(int descriptor, void* bytes, size_t size, off_t offset) __attribute__((alias("pread")));

size_t fread(void* bytes, size_t size, size_t count, FILE* file) {
  Path full;
  const auto call = [&] { return REAL(fread)(bytes, size, count, file); };
  if (!watched_descriptor(::fileno(file), full)) return call();
  const size_t failure = 0;
  return whole(kRead, "fread", full, failure, call);
}

void* mmap(void* address, size_t length, int protection, int flags, int descriptor, off_t offset) noexcept {
  Path full;
  const auto call = [&] { return REAL(mmap)(address, length, protection, flags, descriptor, offset); };
  if (descriptor < 0 || !watched_descriptor(descriptor, full)) return call();
  return whole(kMap, "mmap", full, MAP_FAILED, call);
}
void* mmap64(void* address, size_t length, int protection, int flags, int descriptor, off_t offset) noexcept
    __attribute__((alias("mmap")));

ssize_t write(int descriptor, const void* bytes, size_t size) {
  Path full;
  const auto call = [&](size_t some) { return REAL(write)(descriptor, bytes, some); };
  if (!watched_descriptor(descriptor, full)) return call(size);
  return partial(kWrite, "write", full, size, call,
                 [&](ssize_t done) { note_written(descriptor, ::lseek(descriptor, 0, SEEK_CUR) - done, done); });
}

ssize_t pwrite(int descriptor, const void* bytes, size_t size, off_t offset) {
  Path full;
  const auto call = [&](size_t some) { return REAL(pwrite)(descriptor, bytes, some, offset); };
  if (!watched_descriptor(descriptor, full)) return call(size);
  return partial(kWrite, "pwrite", full, size, call, [&](ssize_t done) { note_written(descriptor, offset, done); });
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t size, off_t offset) __attribute__((alias("pwrite")));

ssize_t writev(int descriptor, const iovec* parts, int count) {
  Path full;
  if (!watched_descriptor(descriptor, full)) return REAL(writev)(descriptor, parts, count);
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  // Half of it is the first part alone, or half of that.
  const auto call = [&](size_t some) {
    if (some == size) return REAL(writev)(descriptor, parts, count);
    return REAL(write)(descriptor, parts[0].iov_base, some < parts[0].iov_len ? some : parts[0].iov_len);
  };
  return partial(kWrite, "writev", full, size, call,
                 [&](ssize_t done) { note_written(descriptor, ::lseek(descriptor, 0, SEEK_CUR) - done, done); });
}

size_t fwrite(const void* bytes, size_t size, size_t count, FILE* file) {
  Path full;
  const auto call = [&] { return REAL(fwrite)(bytes, size, count, file); };
  if (!watched_descriptor(::fileno(file), full)) return call();
  const size_t failure = 0;
  return whole(kWrite, "fwrite", full, failure, call);
}

int fflush(FILE* file) {
  Path full;
  const auto call = [&] { return REAL(fflush)(file); };
  return file != nullptr && watched_descriptor(::fileno(file), full) ? whole(kWrite, "fflush", full, EOF, call) : call();
}

int fclose(FILE* file) {
  Path full;
  const auto call = [&] { return REAL(fclose)(file); };
  return watched_descriptor(::fileno(file), full) ? whole(kClose, "fclose", full, EOF, call) : call();
}

ssize_t sendfile(int to, int from, off_t* offset, size_t size) noexcept {
  Path full;
  const auto call = [&](size_t some) { return REAL(sendfile)(to, from, offset, some); };
  if (!watched_descriptor(to, full)) return call(size);
  return partial(kWrite, "sendfile", full, size, call,
                 [&](ssize_t done) { note_written(to, ::lseek(to, 0, SEEK_CUR) - done, done); });
}
ssize_t sendfile64(int to, int from, off_t* offset, size_t size) noexcept __attribute__((alias("sendfile")));

int fsync(int descriptor) {
  Path full;
  const auto call = [&] {
    const int result = REAL(fsync)(descriptor);
    if (result == 0) note_flushed(descriptor);
    return result;
  };
  return watched_descriptor(descriptor, full) ? whole(kSync, "fsync", full, -1, call) : call();
}

int fdatasync(int descriptor) {
  Path full;
  const auto call = [&] {
    const int result = REAL(fdatasync)(descriptor);
    if (result == 0) note_flushed(descriptor);
    return result;
  };
  return watched_descriptor(descriptor, full) ? whole(kSync, "fdatasync", full, -1, call) : call();
}

int rename(const char* from, const char* to) noexcept {
  Path full;
  const auto call = [&] { return REAL(rename)(from, to); };
  return watched_path(AT_FDCWD, to, full) ? whole(kRename, "rename", full, -1, call) : call();
}

int link(const char* from, const char* to) noexcept {
  Path full;
  const auto call = [&] { return REAL(link)(from, to); };
  return watched_path(AT_FDCWD, to, full) ? whole(kRename, "link", full, -1, call) : call();
}

int unlink(const char* path) noexcept {
  Path full;
  const auto call = [&] { return REAL(unlink)(path); };
  return watched_path(AT_FDCWD, path, full) ? whole(kRemove, "unlink", full, -1, call) : call();
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  Path full;
  const auto call = [&] { return REAL(unlinkat)(folder, path, flags); };
  return watched_path(folder, path, full) ? whole(kRemove, "unlinkat", full, -1, call) : call();
}

int rmdir(const char* path) noexcept {
  Path full;
  const auto call = [&] { return REAL(rmdir)(path); };
  return watched_path(AT_FDCWD, path, full) ? whole(kRemove, "rmdir", full, -1, call) : call();
}

int remove(const char* path) noexcept {
  Path full;
  const auto call = [&] { return REAL(remove)(path); };
  return watched_path(AT_FDCWD, path, full) ? whole(kRemove, "remove", full, -1, call) : call();
}

int mkdir(const char* path, mode_t mode) noexcept {
  Path full;
  const auto call = [&] { return REAL(mkdir)(path, mode); };
  return watched_path(AT_FDCWD, path, full) ? whole(kMkdir, "mkdir", full, -1, call) : call();
}

char* mkdtemp(char* name) noexcept {
  Path full;
  const auto call = [&] { return REAL(mkdtemp)(name); };
  return watched_path(AT_FDCWD, name, full) ? whole(kMkdir, "mkdtemp", full, static_cast<char*>(nullptr), call) : call();
}

int ftruncate(int descriptor, off_t length) noexcept {
  Path full;
  const auto call = [&] { return REAL(ftruncate)(descriptor, length); };
  return watched_descriptor(descriptor, full) ? whole(kResize, "ftruncate", full, -1, call) : call();
}
int ftruncate64(int descriptor, off_t length) noexcept __attribute__((alias("ftruncate")));

// Returns its error instead of setting errno.
int posix_fallocate(int descriptor, off_t offset, off_t length) {
  Path full;
  const auto call = [&] { return REAL(posix_fallocate)(descriptor, offset, length); };
  return watched_descriptor(descriptor, full) ? whole(kResize, "posix_fallocate", full, layer.error, call) : call();
}
int posix_fallocate64(int descriptor, off_t offset, off_t length) __attribute__((alias("posix_fallocate")));

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  Path full;
  const auto call = [&] { return REAL(fallocate)(descriptor, mode, offset, length); };
  return watched_descriptor(descriptor, full) ? whole(kResize, "fallocate", full, -1, call) : call();
}
int fallocate64(int descriptor, int mode, off_t offset, off_t length) __attribute__((alias("fallocate")));

int flock(int descriptor, int operation) noexcept {
  Path full;
  const auto call = [&] { return REAL(flock)(descriptor, operation); };
  return watched_descriptor(descriptor, full) ? whole(kLock, "flock", full, -1, call) : call();
}

int fcntl(int descriptor, int command, ...) {
  std::va_list rest;
  va_start(rest, command);
  void* argument = va_arg(rest, void*);
  va_end(rest);
  Path full;
  const auto call = [&] { return REAL(fcntl)(descriptor, command, argument); };
  const bool locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  return locks && watched_descriptor(descriptor, full) ? whole(kLock, "fcntl", full, -1, call) : call();
}
int fcntl64(int descriptor, int command, ...) __attribute__((alias("fcntl")));

void* malloc(size_t size) noexcept {
  if (no_memory(size)) return errno = ENOMEM, nullptr;
  return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) noexcept {
  if (no_memory(count * size)) return errno = ENOMEM, nullptr;
  return __libc_calloc(count, size);
}

void* realloc(void* old, size_t size) noexcept {
  if (no_memory(size)) return errno = ENOMEM, nullptr;
  return __libc_realloc(old, size);
}

void* aligned_alloc(size_t alignment, size_t size) noexcept {
  if (no_memory(size)) return errno = ENOMEM, nullptr;
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  if (no_memory(size)) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}

}  // extern "C"
