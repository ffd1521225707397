// Importance matrices of llama.cpp: how large the inputs of each weight are, which quantizers weigh their errors with.
// Formats: https://github.com/ggml-org/llama.cpp/blob/master/tools/imatrix/README.md
//
//   GGUF: general.type "imatrix"; imatrix.datasets strings; imatrix.chunk_count, imatrix.chunk_size u32; for each weight, sorted by
//   name, two F32
//         tensors: <name>.in_sum2 [matrices, columns] and <name>.counts [matrices, 1]. Several matrices: one for each expert.
//   .dat: entries:i32 (length:i32 name calls:i32 values:i32 float32[values])* and at the end chunks:i32 length:i32 dataset. A value
//   is its mean times calls.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace salient::models {

struct ImatrixEntry {
  at::Tensor sum_of_squares;  // float32 [matrices, columns]: of the inputs, over all tokens
  at::Tensor counts;          // float32 [matrices]: tokens
};

struct Imatrix {
  std::map<std::string, ImatrixEntry> entries;  // by GGUF's tensor name: "blk.0.attn_q.weight"
  std::vector<std::string> datasets;
  int64_t chunk_count = 0;  // of calibration text
  int64_t chunk_size = 0;   // tokens
};

// Errors: invalid argument for shapes that do not belong together, numbers that are not finite or negative, names that leave no
// room for the ending; io.
void write_imatrix(const std::filesystem::path& path, const Imatrix& imatrix);

// Either format, by its first bytes. Errors: not found, io; corruption for truncated files, counts that do not fit, numbers that
// are not finite.
Imatrix read_imatrix(const std::filesystem::path& path);

// Mean square of each column, float32 [matrices, columns]: what quantizers want. Matrices without tokens (experts that were never
// chosen) get ones.
at::Tensor imatrix_importance(const ImatrixEntry& entry);

}  // namespace salient::models
