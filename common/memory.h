// This process's memory, as Linux counts it.
#pragma once

#include <cstdint>

namespace salient {

// The most memory that was resident at once so far (VmHWM of /proc/self/status); 0 where it cannot be read.
uint64_t peak_memory_bytes();
// What the machine could still give without swapping (MemAvailable of /proc/meminfo); 0 where it cannot be read.
uint64_t available_memory_bytes();

// While it lives, this process's heap keeps what is freed until return_free_memory() is called. Tensors of some megabytes that come
// and go are otherwise mapped anew each time, and their pages faulted in one by one: a quarter of the time of quantizing a small
// model. Afterwards what is free goes back to the system, and large tensors are mapped again.
class FreedMemoryKept {
 public:
  FreedMemoryKept();
  ~FreedMemoryKept();
  FreedMemoryKept(const FreedMemoryKept&) = delete;
  FreedMemoryKept& operator=(const FreedMemoryKept&) = delete;
};

// Gives free pages of the heap back to the system. Tensors of many sizes that come and go leave holes, which otherwise add up over
// the blocks of a model: without this, peak memory grows with their number.
void return_free_memory();

}  // namespace salient
