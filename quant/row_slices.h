// Slices of a weight's rows whose temporaries fit into a bound (AutoAWQ's max_chunk_memory).
#pragma once

#include <algorithm>
#include <cstdint>

namespace salient::quant {

inline constexpr int64_t kDefaultChunkMemory = int64_t{1} << 30;

// A search holds up to six arrays of a slice's shape at a time: the error, its groups in another order, their products with the
// Gram matrix.
inline constexpr int64_t kSliceArrays = 6;

// Rows of a slice of a float32 weight with this many columns: at least one.
inline int64_t rows_in_memory(int64_t bytes, int64_t columns) {
  return std::max<int64_t>(1, bytes / (kSliceArrays * static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(1, columns)));
}

}  // namespace salient::quant
