#include "common/memory.h"

#include <malloc.h>

#include <fstream>
#include <mutex>
#include <string>

namespace salient {
namespace {

#ifdef __GLIBC__
// Where glibc's own thresholds end once tensors have come and gone; older versions take no more as the size from which memory is
// mapped.
constexpr int kMostMapped = 32 << 20;

// malloc's settings are the process's: the first FreedMemoryKept changes them, the last one changes them back.
std::mutex kept_mutex;
int kept_objects = 0;
#endif

// Lines of the form "VmHWM:     1234 kB".
uint64_t read_kilobytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

}  // namespace

uint64_t peak_memory_bytes() { return read_kilobytes("/proc/self/status", "VmHWM"); }

uint64_t available_memory_bytes() { return read_kilobytes("/proc/meminfo", "MemAvailable"); }

FreedMemoryKept::FreedMemoryKept() {
#ifdef __GLIBC__
  const std::lock_guard hold(kept_mutex);
  if (kept_objects++ > 0) return;
  if (::mallopt(M_MMAP_THRESHOLD, 1 << 30) == 0) ::mallopt(M_MMAP_THRESHOLD, kMostMapped);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

FreedMemoryKept::~FreedMemoryKept() {
#ifdef __GLIBC__
  const std::lock_guard hold(kept_mutex);
  if (--kept_objects > 0) return;
  ::mallopt(M_MMAP_THRESHOLD, kMostMapped);
  ::mallopt(M_TRIM_THRESHOLD, 2 * kMostMapped);
  ::malloc_trim(0);
#endif
}

void return_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace salient
