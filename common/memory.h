// This process's memory, as Linux counts it.
#pragma once

#include <cstdint>

namespace salient {

// The most memory that was resident at once so far (VmHWM of /proc/self/status); 0 where it cannot be read.
uint64_t peak_memory_bytes();
// What the machine could still give without swapping (MemAvailable of /proc/meminfo); 0 where it cannot be read.
uint64_t available_memory_bytes();

// Lets this process's heap keep what is freed until return_free_memory() is called. Tensors of some megabytes that come and go are otherwise mapped anew
// each time, and their pages faulted in one by one: a quarter of the time of quantizing a small model. For a program's start: it holds for the whole process.
void keep_freed_memory();

// Gives free pages of the heap back to the system. Tensors of many sizes that come and go leave holes, which otherwise add up over the blocks of a
// model: without this, peak memory grows with their number.
void return_free_memory();

}  // namespace salient
