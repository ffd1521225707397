// The tensor types of ggml, and whole weights in them. Layouts: quant/ggml_blocks.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "quant/ggml_blocks.h"

namespace salient::quant {

// Values are the numbers that GGUF files hold. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  // as llama.cpp prints it: "Q4_K"
  int64_t block_elements;
  int64_t block_bytes;
  // Null for types that are known by their size only.
  QuantizeGgmlRow quantize = nullptr;
  DequantizeGgmlRow dequantize = nullptr;
  // Where float16 scales stand in a block, -1 for none: what to look at for numbers that did not fit.
  int half_offsets[2] = {-1, -1};

  // Bytes of a row; columns must be a multiple of block_elements.
  int64_t row_bytes(int64_t columns) const { return columns / block_elements * block_bytes; }
};

// All rows, in the order of their numbers.
std::span<const GgmlTypeInfo> ggml_types();
// Null for a number or name that is not known; names in any letter case ("q4_k").
const GgmlTypeInfo* find_ggml_type(uint32_t number);
const GgmlTypeInfo* find_ggml_type(std::string_view name);
// Errors: internal for a value that is not in the table.
const GgmlTypeInfo& ggml_type_info(GgmlType type);

// weight: [rows, columns], float32 or a narrower float type (computed in float32), on the CPU; importance: float32 [columns] >= 0,
// or undefined. Returns uint8 [rows, bytes of a row]. Errors: invalid argument for columns that are no multiple of the block,
// values that are not finite or too large for a float16 scale, an importance of another length or with negative values, a type that
// cannot be written here.
at::Tensor quantize_ggml(const at::Tensor& weight, GgmlType type, const at::Tensor& importance = {});

// blocks: uint8 [rows, bytes], contiguous rows. Returns float32 [rows, columns]. Errors: corruption for bytes that are no multiple
// of the block; unsupported for a type that cannot be read here.
at::Tensor dequantize_ggml(const at::Tensor& blocks, GgmlType type);

}  // namespace salient::quant
