// Activations in 8 bits, a scale for each row, found while the model runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/kernels/tile_kernels.h"

namespace salient::quant {

// x[r, k] is about codes[r, k] * scales[r].
struct QuantizedRows {
  int64_t in_features = 0;
  int64_t group_size = 0;  // of the weights that it is multiplied with
  at::Tensor codes;        // int8 [rows, groups, padded_group]: each group filled with 0 up to a multiple of 8
  at::Tensor scales;       // float32 [rows]
  at::Tensor sums;         // int32 [rows, groups]: of the codes, for the weights' zero points
};

// scale = max |x| / 127.5, or 2^-23 for a row of zeros; code = x / scale, rounded to nearest even, in -128..127:
// compressed-tensors' symmetric 8-bit scheme with strategy "token" and dynamic true, for float32
// (compressed_tensors/quantization/utils/helpers.py, calculate_qparams). A row with NaN or infinity has a scale that is neither
// finite, and so have its products. x: float32 [rows, in_features]; group_size divides in_features.
QuantizedRows quantize_rows(const at::Tensor& x, int64_t group_size);

// The same into memory of the caller: codes [rows, in_features / group_size * padded_group], scales [rows], sums [rows, in_features
// / group_size]. Parallel.
void quantize_rows(const float* x, int64_t rows, int64_t in_features, int64_t group_size, int8_t* codes, float* scales,
                   int32_t* sums);

// One row in this thread: codes [in_features / group_size * padded_group], sums [in_features / group_size]. Returns the scale.
float quantize_row(const float* x, int64_t in_features, int64_t group_size, int8_t* codes, int32_t* sums);

RowsView view_of(const QuantizedRows& rows);

// The float32 values that the codes stand for, [rows, in_features]: for references and tests.
at::Tensor dequantize(const QuantizedRows& rows);

}  // namespace salient::quant
