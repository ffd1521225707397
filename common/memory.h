// This process's memory, as Linux counts it.
#pragma once

#include <cstdint>

namespace salient {

// The most memory that was resident at once so far (VmHWM of /proc/self/status); 0 where it cannot be read.
uint64_t peak_memory_bytes();
// What the machine could still give without swapping (MemAvailable of /proc/meminfo); 0 where it cannot be read.
uint64_t available_memory_bytes();

// Gives free pages of the heap back to the system. Tensors of many sizes that come and go leave holes, which otherwise add up over the blocks of a
// model: without this, peak memory grows with their number.
void return_free_memory();

}  // namespace salient
