// NumPy's .npy format: one array. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
//   file   = magic version length header data
//   magic  = 93 'N' 'U' 'M' 'P' 'Y';  version = two bytes, 1.0, 2.0 or 3.0
//   length = u16 (version 1) or u32 (2 and 3), little-endian, bytes of the header
//   header = a Python dict literal with exactly the keys descr, fortran_order, shape, padded with spaces and ended by a line end, so that the
//            data begins at a multiple of 64 bytes
//   data   = the elements; the last index runs fastest, with fortran_order the first
//
// Example: [1, 2] as float32 is  93 4E 55 4D 50 59 01 00 76 00  {'descr': '<f4', 'fortran_order': False, 'shape': (2,), }...  00 00 80 3F 00 00 00 40
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace salient::models {

struct NpyHeader {
  at::ScalarType dtype = at::kFloat;  // float16/32/64, int8/16/32/64, uint8/16/32/64, bool
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<int64_t> shape;  // empty: one number
  uint64_t header_bytes = 0;   // where the data begins
  uint64_t data_bytes = 0;
};

// The longest prefix of a file that make_npy_header or NumPy would write a header into; longer headers are refused.
inline constexpr uint64_t kMaxNpyHeaderBytes = 64 * 1024;

// `bytes`: the beginning of the file, at least its whole header. Errors, with `where` in front: corruption for what is no .npy
// header, a header cut short, wrong keys, a shape of more than 2^63 bytes; unsupported for dtypes that torch has not (object
// arrays, which would need unpickling, text, complex, structured, dates).
NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& where);

// The header that NumPy writes for a C-ordered array, version 1.0. Errors: unsupported dtype (bfloat16: NumPy has none).
std::string make_npy_header(at::ScalarType dtype, const std::vector<int64_t>& shape);

// The array out of its data (header.data_bytes bytes): C-contiguous, in this machine's byte order, memory of its own.
at::Tensor decode_npy_data(const NpyHeader& header, std::span<const std::byte> data);

// Whole files. Errors: those above, not found, io; corruption when the file is shorter or longer than its header says.
at::Tensor read_npy(const std::filesystem::path& path);
void write_npy(const std::filesystem::path& path, const at::Tensor& array);

}  // namespace salient::models
