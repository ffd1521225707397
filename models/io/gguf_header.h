// The head of a GGUF file: metadata, and where each tensor lies. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
//   file   = "GGUF" version:u32 tensor_count:u64 pair_count:u64 pair* info* padding data
//   pair   = key:string type:u32 value            type 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array, 10
//   u64, 11 i64, 12 f64 string = length:u64 bytes                     UTF-8, no final NUL array  = type:u32 count:u64 value* of one
//   type; arrays of arrays are not supported, here as in llama.cpp info   = name:string dimension_count:u32 dimension:u64* type:u32
//   offset:u64 data   = the tensors in the order of their infos, each padded with zeros to a multiple of the alignment; offsets
//   count from the first byte of
//            data, which is aligned itself. The alignment is the u32 "general.alignment", 32 when there is none.
//
// All numbers little-endian; bool is one byte, 0 or 1. Dimensions are written with the one that runs fastest first: a torch weight
// [out, in] is written as (in, out), its bytes unchanged. Shapes here are torch's.
//
// Example: no metadata, one F32 tensor "a" of shape [2] is
//   47 47 55 46  03 00 00 00  01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00
//   01 00 00 00 00 00 00 00 'a'  01 00 00 00  02 00 00 00 00 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00   seven zeros, 8 bytes,
//   24 zeros
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quant/ggml_types.h"

namespace salient::models {

// The index of the alternative is the format's type number; 9 cannot occur.
using GgufArray =
    std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>, std::vector<uint32_t>,
                 std::vector<int32_t>, std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate,
                 std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string, GgufArray, uint64_t,
                               int64_t, double>;

struct GgufPair {
  std::string key;
  GgufValue value;
};

struct GgufTensor {
  std::string name;
  quant::GgmlType type = quant::GgmlType::kF32;
  std::vector<int64_t> shape;  // torch's order; the last dimension is a row
  uint64_t offset = 0;         // from the first byte of data; set by the functions below
};

struct GgufHeader {
  uint32_t version = 3;
  std::vector<GgufPair> metadata;   // in the order of the file
  std::vector<GgufTensor> tensors;  // likewise
  uint64_t alignment = 32;
  uint64_t data_begin = 0;  // bytes from the start of the file

  // Null when there is no such key.
  const GgufValue* find(std::string_view key) const;
};

// Longer ones are refused, here as in llama.cpp (GGML_MAX_NAME - 1, GGML_MAX_DIMS).
inline constexpr size_t kMaxGgufNameBytes = 63;
inline constexpr size_t kMaxGgufDimensions = 4;

// "u32", "string", "array of f32".
std::string gguf_type_name(const GgufValue& value);

// The value of a key in the given type, exactly: llama.cpp converts nothing either. T: uint8_t, uint16_t, uint32_t, int32_t,
// uint64_t, float, bool, std::string, or a vector of float, int32_t or std::string. Errors, with the key and the type found: not
// found, corruption for another type.
template <typename T>
const T& gguf_value(const GgufHeader& header, std::string_view key);
// Null when there is no such key. Errors: corruption for another type.
template <typename T>
const T* find_gguf_value(const GgufHeader& header, std::string_view key);
// One or several whole numbers of any integer type: what may be one number for all layers or one for each. Nothing when there is no
// such key. Errors: corruption for another type or numbers beyond int64.
std::optional<std::vector<int64_t>> find_gguf_integers(const GgufHeader& header, std::string_view key);

// Bytes of a tensor's data without padding. Errors: unsupported for a type that is not in the table; corruption for rows that are
// no multiple of the type's block and for shapes beyond 2^63 bytes.
uint64_t gguf_data_bytes(const GgufTensor& tensor);

// `file`: its beginning, at least the whole head. Reads the head and the numbers in it; whether the data fit is for GgufFile to
// check (models/io/gguf.h). Errors, with `where` in front and the position: corruption for a head that is cut off, absurd counts
// and lengths, unknown metadata types, a bool that is neither 0 nor 1, repeated keys or tensor names, an alignment that is no power
// of two; unsupported for other versions than 2 and 3 (which differ in nothing that matters here), big-endian files and arrays of
// arrays.
GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& where);

// The head of a version 3 file with its padding, ready for the data. Fills in offset, alignment and data_begin; version is set
// to 3. Errors: invalid argument for what parse_gguf_header or GgufFile would refuse.
std::string make_gguf_header(GgufHeader& header);

}  // namespace salient::models
