// Processor kernels for packed 4-bit weights; the layout is PackedLinear's (models/decoder/linear.h).
#pragma once

#include <cstdint>

namespace salient::models {

struct PackedView {
  int64_t in_features = 0;
  int64_t group_size = 0;
  int64_t chunk = 0;                // input channels that are packed together: 32, or a smaller divisor of group_size
  const uint8_t* packed = nullptr;  // [out_features, in_features / 2]
  const float* scales = nullptr;    // [out_features, in_features / group_size]
  const uint8_t* zeros = nullptr;
};

// y[r, n] = sum over k of x[r, k] * W[n, k] for the channels n in [begin, end). x: [rows, in_features]; y: [rows, out_features].
// The sum's order for one row does not depend on the others.
void packed_product(const PackedView& weight, const float* x, int64_t rows, float* y, int64_t out_features, int64_t begin, int64_t end);

// W[n, k] for the channels in [begin, end), to out: [end - begin, in_features].
void packed_dequantize(const PackedView& weight, int64_t begin, int64_t end, float* out);
// The same, rounded to nearest even as bfloat16 bits.
void packed_dequantize_bfloat16(const PackedView& weight, int64_t begin, int64_t end, uint16_t* out);

}  // namespace salient::models
