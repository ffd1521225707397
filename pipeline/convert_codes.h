// A quantized checkpoint in another packed format, without loss: the same codes, zero points and scales, arranged otherwise. No
// calibration, no rounding; A to B and back to A gives the bytes of A where A was written by this program.
//
// Between awq-gemm, awq-gemv, awq-gemv-fast, awq-marlin and compressed-tensors. What cannot be without loss is refused before
// anything is written: other bits than 4, groups or bits that differ by module, an lm_head in codes, zero points for awq-marlin,
// scales that float16 does not hold, GPTQ's order of channels. compressed-tensors gets zero points where any of the model is not
// the middle, else none; scales in the dtype that config.json names where they are exact in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {

struct ConvertResult {
  std::vector<std::filesystem::path> files;  // with weights, names in the folder
  uint64_t bytes = 0;                        // of tensors
  int64_t linears = 0;
  std::string from;  // the format that they were in
  std::vector<std::string> notes;
};

// Writes the tensors, config.json and, where the source has it, quantization_metadata.json into `folder`, which holds no other
// checkpoint. Tensors that are no codes are copied as they are, in the order of the source's files. Memory: one linear at a time;
// every code is read twice. Errors: invalid argument for a float checkpoint, or one that is in `target` already; unsupported for
// what is named above, with the module; those of load_codes and CheckpointWriter.
ConvertResult convert_codes(const models::Checkpoint& checkpoint, WeightFormat target, const std::filesystem::path& folder,
                            uint64_t max_shard_bytes = 5'000'000'000);

}  // namespace salient::pipeline
