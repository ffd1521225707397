// The limit of products of few rows: how fast the machine reads memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::quant {

// Reads all of a tensor once, each thread (at::parallel_for) its own part in order, and does nothing else, with the prefetching of
// the products. memory: int64, contiguous, on the CPU; a multiple of 32 elements for each thread is read, the rest of a part is
// left out. To be timed: bytes / seconds is the read bandwidth where the tensor is much larger than the caches.
void read_memory(const at::Tensor& memory);

}  // namespace salient::quant
