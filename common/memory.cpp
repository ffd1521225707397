#include "common/memory.h"

#include <malloc.h>

#include <fstream>
#include <string>

namespace salient {
namespace {

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

void keep_freed_memory() {
#ifdef __GLIBC__
  // Older versions of glibc take no more than 32 MiB as the size from which memory is mapped.
  if (::mallopt(M_MMAP_THRESHOLD, 1 << 30) == 0) ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

void return_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace salient
