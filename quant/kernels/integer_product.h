// Products of 8-bit activations with weights of up to 8 bits, summed as integers: w4a8 and w8a8.
//
//   y[r, n] = x_scale[r] * sum over groups g, in order, of w_scale[n, g] * (sum over k in g of code_w[n, k] * code_x[r, k] - zero[n, g] * sum of code_x[r, k])
//
// The inner sums are exact; each is rounded to float32, multiplied and added without fusing. So the result has the same bits for
// every instruction set, number of threads, and number of rows that are multiplied together.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/kernels/activations.h"
#include "quant/kernels/instruction_set.h"
#include "quant/kernels/interleaved_weight.h"

namespace salient::quant {

// Bytes of scratch that a product of so many rows needs; 0 for up to kFewRows. Depends on the number of threads of libtorch.
int64_t product_scratch_bytes(const WeightView& weight, int64_t rows, InstructionSet set = best_instruction_set());

// y: float32 [x.rows, out_features]. scratch: product_scratch_bytes, aligned to 64 bytes. Allocates nothing. x quantized for the
// weight's group size.
void integer_product(const WeightView& weight, const RowsView& x, float* y, void* scratch,
                     InstructionSet set = best_instruction_set());

// The same on tensors: float32 [rows, out_features]. Errors: internal where x was quantized for another weight.
at::Tensor integer_product(const InterleavedWeight& weight, const QuantizedRows& x, InstructionSet set = best_instruction_set());

}  // namespace salient::quant
