#include "quant/ggml_types.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "common/error.h"
#include "common/text.h"
#include "quant/ggml_half.h"

namespace salient::quant {
namespace {

void copy_f32(const float* x, const float*, int64_t n, uint8_t* bytes) {
  std::memcpy(bytes, x, static_cast<size_t>(n) * sizeof(float));
}
void read_f32(const uint8_t* bytes, int64_t n, float* x) { std::memcpy(x, bytes, static_cast<size_t>(n) * sizeof(float)); }

void round_f16(const float* x, const float*, int64_t n, uint8_t* bytes) {
  for (int64_t i = 0; i < n; ++i) store_half(x[i], bytes + 2 * i);
}
void read_f16(const uint8_t* bytes, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) x[i] = load_half(bytes + 2 * i);
}

void round_bf16(const float* x, const float*, int64_t n, uint8_t* bytes) {
  for (int64_t i = 0; i < n; ++i) {
    const c10::BFloat16 rounded(x[i]);
    std::memcpy(bytes + 2 * i, &rounded.x, sizeof(rounded.x));
  }
}
void read_bf16(const uint8_t* bytes, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(bytes[2 * i]) << 16 | static_cast<uint32_t>(bytes[2 * i + 1]) << 24;
    std::memcpy(x + i, &bits, sizeof(bits));
  }
}

constexpr GgmlType number(uint32_t value) { return static_cast<GgmlType>(value); }

constexpr GgmlTypeInfo kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4, copy_f32, read_f32},
    {GgmlType::kF16, "F16", 1, 2, round_f16, read_f16, {0, -1}},
    {GgmlType::kQ4_0, "Q4_0", 32, 18, quantize_q4_0, dequantize_q4_0, {0, -1}},
    {GgmlType::kQ4_1, "Q4_1", 32, 20, quantize_q4_1, dequantize_q4_1, {0, 2}},
    {GgmlType::kQ5_0, "Q5_0", 32, 22, quantize_q5_0, dequantize_q5_0, {0, -1}},
    {GgmlType::kQ5_1, "Q5_1", 32, 24, quantize_q5_1, dequantize_q5_1, {0, 2}},
    {GgmlType::kQ8_0, "Q8_0", 32, 34, quantize_q8_0, dequantize_q8_0, {0, -1}},
    {number(9), "Q8_1", 32, 36},
    {number(10), "Q2_K", 256, 84},
    {number(11), "Q3_K", 256, 110},
    {GgmlType::kQ4_K, "Q4_K", 256, 144, quantize_q4_k, dequantize_q4_k, {0, 2}},
    {GgmlType::kQ5_K, "Q5_K", 256, 176, quantize_q5_k, dequantize_q5_k, {0, 2}},
    {GgmlType::kQ6_K, "Q6_K", 256, 210, quantize_q6_k, dequantize_q6_k, {208, -1}},
    {number(15), "Q8_K", 256, 292},
    {number(16), "IQ2_XXS", 256, 66},
    {number(17), "IQ2_XS", 256, 74},
    {number(18), "IQ3_XXS", 256, 98},
    {number(19), "IQ1_S", 256, 50},
    {number(20), "IQ4_NL", 32, 18},
    {number(21), "IQ3_S", 256, 110},
    {number(22), "IQ2_S", 256, 82},
    {number(23), "IQ4_XS", 256, 136},
    {number(24), "I8", 1, 1},
    {number(25), "I16", 1, 2},
    {number(26), "I32", 1, 4},
    {number(27), "I64", 1, 8},
    {number(28), "F64", 1, 8},
    {number(29), "IQ1_M", 256, 56},
    {GgmlType::kBF16, "BF16", 1, 2, round_bf16, read_bf16},
    {number(34), "TQ1_0", 256, 54},
    {number(35), "TQ2_0", 256, 66},
    {number(39), "MXFP4", 32, 17},
};

bool all_halves_finite(const GgmlTypeInfo& info, const uint8_t* row, int64_t bytes) {
  for (const int offset : info.half_offsets) {
    if (offset < 0) continue;
    for (int64_t at = offset; at < bytes; at += info.block_bytes) {
      if ((row[at + 1] & 0x7c) == 0x7c) return false;
    }
  }
  return true;
}

bool all_finite(const float* x, int64_t n) {
  return std::all_of(x, x + n, [](float value) { return std::isfinite(value); });
}

void check_importance(const at::Tensor& importance, int64_t columns) {
  if (importance.dim() != 1 || importance.size(0) != columns) {
    fail(ErrorKind::kInvalidArgument, "importance: {} numbers, expected one for each of the {} columns", importance.numel(),
         columns);
  }
  const float* data = importance.const_data_ptr<float>();
  for (int64_t i = 0; i < columns; ++i) {
    if (!(data[i] >= 0.0f) || !std::isfinite(data[i])) {
      fail(ErrorKind::kInvalidArgument, "importance of column {}: {}, expected a finite number that is not negative", i, data[i]);
    }
  }
}

}  // namespace

std::span<const GgmlTypeInfo> ggml_types() { return kTypes; }

const GgmlTypeInfo* find_ggml_type(uint32_t value) {
  const auto* row =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgmlTypeInfo& info) { return info.type == number(value); });
  return row != std::end(kTypes) ? row : nullptr;
}

const GgmlTypeInfo* find_ggml_type(std::string_view name) {
  const std::string upper = to_upper(std::string(name));
  const auto* row =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgmlTypeInfo& info) { return info.name == upper; });
  return row != std::end(kTypes) ? row : nullptr;
}

const GgmlTypeInfo& ggml_type_info(GgmlType type) {
  const GgmlTypeInfo* info = find_ggml_type(static_cast<uint32_t>(type));
  if (info == nullptr) fail(ErrorKind::kInternal, "ggml type {} is not in the table", static_cast<uint32_t>(type));
  return *info;
}

at::Tensor quantize_ggml(const at::Tensor& weight, GgmlType type, const at::Tensor& importance) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  if (info.quantize == nullptr) fail(ErrorKind::kInvalidArgument, "tensors of type {} cannot be written", info.name);
  if (!weight.defined() || weight.dim() != 2 || !weight.is_floating_point()) {
    fail(ErrorKind::kInvalidArgument, "a weight to become {} must be a matrix of floating-point numbers", info.name);
  }
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  if (columns % info.block_elements != 0) {
    fail(ErrorKind::kInvalidArgument, "{} columns cannot be divided into blocks of {}: {} holds {} elements a block", columns,
         info.block_elements, info.name, info.block_elements);
  }
  at::Tensor weights_of_columns;
  if (importance.defined()) {
    weights_of_columns = importance.to(at::kFloat).contiguous();
    check_importance(weights_of_columns, columns);
  }
  const float* column_weights = weights_of_columns.defined() ? weights_of_columns.const_data_ptr<float>() : nullptr;

  const at::Tensor source = weight.scalar_type() == at::kFloat ? weight.contiguous() : at::Tensor();
  const int64_t bytes = info.row_bytes(columns);
  at::Tensor blocks = at::empty({rows, bytes}, at::kByte);
  if (blocks.numel() == 0) return blocks;
  std::atomic<int64_t> bad_input{rows};
  std::atomic<int64_t> too_large{rows};
  // The first row of a kind, whichever thread meets it.
  const auto note = [](std::atomic<int64_t>& first, int64_t row) {
    for (int64_t seen = first; row < seen && !first.compare_exchange_weak(seen, row);) {
    }
  };
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const at::Tensor converted = source.defined() ? at::Tensor() : weight.select(0, row).to(at::kFloat).contiguous();
      const float* x = source.defined() ? source.const_data_ptr<float>() + row * columns : converted.const_data_ptr<float>();
      uint8_t* to = blocks.mutable_data_ptr<uint8_t>() + row * bytes;
      if (!all_finite(x, columns)) {
        note(bad_input, row);
        continue;
      }
      info.quantize(x, column_weights, columns, to);
      if (!all_halves_finite(info, to, bytes)) note(too_large, row);
    }
  });
  if (bad_input < rows)
    fail(ErrorKind::kInvalidArgument, "row {} of the weight holds a value that is not finite: it cannot become {}",
         bad_input.load(), info.name);
  if (too_large < rows) {
    throw Error(
        ErrorKind::kInvalidArgument,
        fmt::format("row {} of the weight holds values too large for the float16 numbers of {}", too_large.load(), info.name))
        .with_hint("write this tensor as BF16 or F32");
  }
  return blocks;
}

at::Tensor dequantize_ggml(const at::Tensor& blocks, GgmlType type) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  if (info.dequantize == nullptr) fail(ErrorKind::kUnsupported, "tensors of type {} cannot be read", info.name);
  if (!blocks.defined() || blocks.dim() != 2 || blocks.scalar_type() != at::kByte || blocks.size(1) % info.block_bytes != 0) {
    fail(ErrorKind::kCorruption, "{} data must be bytes [rows, a multiple of {}]", info.name, info.block_bytes);
  }
  const at::Tensor source = blocks.contiguous();
  const int64_t rows = source.size(0);
  const int64_t bytes = source.size(1);
  const int64_t columns = bytes / info.block_bytes * info.block_elements;
  at::Tensor weight = at::empty({rows, columns}, at::kFloat);
  if (weight.numel() == 0) return weight;
  const uint8_t* from = source.const_data_ptr<uint8_t>();
  float* to = weight.mutable_data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, 65536 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) info.dequantize(from + row * bytes, columns, to + row * columns);
  });
  return weight;
}

}  // namespace salient::quant
