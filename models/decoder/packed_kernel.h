// Processor kernels for weights of up to 4 bits, two codes in a byte, and of up to 8 bits, one in a byte.
//
// A row of in_features codes in half bytes has one of two layouts:
//   wide   in_features a multiple of 128, group_size a multiple of 128 or one of 16, 32, 64: a chunk of 128 channels is 16
//          little-endian words of 32 bits; word i holds channels i, i + 16, ..., i + 112 of it in bits 0-3, 4-7, ..., 28-31.
//          One shift and mask of 16 words gives 16 neighbours, without widening bytes or a shuffle.
//   pairs  everything else, slow: byte i holds channel 2i in its low and channel 2i + 1 in its high four bits.
// Example: codes 1,2,3,4 in pairs are the bytes 21 43 (hexadecimal).
#pragma once

#include <cstdint>

namespace salient::models {

inline constexpr int64_t kWideChunk = 128;  // input channels
inline constexpr int64_t kWideLanes = 16;

// W[n, k] = (code[n, k] - zeros[n, k / group_size]) * scales[n, k / group_size].
struct PackedView {
  int64_t in_features = 0;
  int64_t group_size = 0;           // even, divides in_features
  const uint8_t* packed = nullptr;  // [out_features, in_features / 2]
  const float* scales = nullptr;    // [out_features, in_features / group_size]
  const uint8_t* zeros = nullptr;   // the same
};

constexpr bool is_wide(int64_t in_features, int64_t group_size) {
  return in_features % kWideChunk == 0 &&
         (group_size % kWideChunk == 0 || (kWideChunk % group_size == 0 && group_size % kWideLanes == 0));
}

// codes: [rows, in_features], 0..15 -> packed: [rows, in_features / 2].
void pack_codes(const uint8_t* codes, int64_t rows, int64_t in_features, bool wide, uint8_t* packed);

// A chunk of `channels` rows of the wide layout from codes that lie side by side: codes[k * stride + n] of channel n -> packed + n
// * row_bytes. `channels`: a multiple of 8.
void pack_wide_chunk(const uint8_t* codes, int64_t stride, int64_t channels, uint8_t* packed, int64_t row_bytes);

// Rows as packed_product reads them.
struct PackedInput {
  int64_t rows = 0;
  const float* numbers =
      nullptr;  // [rows, in_features]; for the wide layout divided by 16 to the power of the nibble that a channel's codes are in
  const float* sums = nullptr;  // [rows, in_features / group_size], of the numbers before that
};
// x: [rows, in_features] -> numbers and sums, in memory of the caller. A power of two changes no bit of a number unless it becomes
// smaller than 2^-126.
void prepare_packed_input(const PackedView& weight, const float* x, int64_t rows, float* numbers, float* sums);

// y[r, n] = sum over k of x[r, k] * W[n, k] for the channels n in [begin, end). y: [rows, out_features].
// The sum's order for one row does not depend on the others, nor on `begin` and `end`.
void packed_product(const PackedView& weight, const PackedInput& x, float* y, int64_t out_features, int64_t begin, int64_t end);

// W[n, k] for the channels in [begin, end), to out: [end - begin, in_features].
void packed_dequantize(const PackedView& weight, int64_t begin, int64_t end, float* out);
// The same, rounded to nearest even as bfloat16 bits.
void packed_dequantize_bfloat16(const PackedView& weight, int64_t begin, int64_t end, uint16_t* out);

// The same weight with one code in a byte, in their natural order; any group size that divides.
struct ByteView {
  int64_t in_features = 0;
  int64_t group_size = 0;
  const uint8_t* codes = nullptr;  // [out_features, in_features]
  const float* scales = nullptr;   // [out_features, in_features / group_size]
  const uint8_t* zeros = nullptr;  // the same
};
void byte_dequantize(const ByteView& weight, int64_t begin, int64_t end, float* out);
void byte_dequantize_bfloat16(const ByteView& weight, int64_t begin, int64_t end, uint16_t* out);

}  // namespace salient::models
