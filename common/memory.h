// This process's memory, as Linux counts it.
#pragma once

#include <cstdint>

namespace salient {

// The most memory that was resident at once so far (VmHWM of /proc/self/status); 0 where it cannot be read.
uint64_t peak_memory_bytes();
// What the machine could still give without swapping (MemAvailable of /proc/meminfo); 0 where it cannot be read.
uint64_t available_memory_bytes();

}  // namespace salient
