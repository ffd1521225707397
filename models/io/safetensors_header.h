// The head of a safetensors file: where each tensor goes, and the bytes that say so.
// https://github.com/huggingface/safetensors#format
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace salient::models {

struct PlannedTensor {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
};

// Bytes of the tensor's data, packed. Errors: invalid argument for a negative or overflowing shape.
uint64_t data_bytes(const PlannedTensor& tensor);

// The 8 length bytes and the JSON, padded with spaces so that the data that follows starts at a multiple of 64 bytes. The tensors
// lie in the given order without holes (readers reject holes): tensor i starts at the sum of the data_bytes before it.
// "__metadata__" is left out when `metadata` is empty. Example, one tensor "a" of F16 [2]:
//   38 00 00 00 00 00 00 00  {"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}  spaces
// Errors: invalid argument for a name that is empty, repeated, "__metadata__" or not UTF-8; unsupported dtype.
std::string make_safetensors_header(std::span<const PlannedTensor> tensors, const std::map<std::string, std::string>& metadata);

}  // namespace salient::models
