// What libtorch throws where a device's memory is full.
#pragma once

#include <c10/util/Exception.h>

namespace salient::quant {

// Whether the error says so: c10::OutOfMemoryError, which the caching allocator throws, or an error of the driver or of a library
// that asked for memory of its own ("CUDA error: out of memory", CUBLAS_STATUS_ALLOC_FAILED, CUSOLVER_STATUS_ALLOC_FAILED). Not for
// the processor's memory, of which libtorch says "can't allocate memory".
bool is_out_of_memory(const c10::Error& error);

}  // namespace salient::quant
