// Products of float32 activations with weights kept in float16 or bfloat16, for few rows: half the bytes of float32, the same sums.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/kernels/instruction_set.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::quant {

// y[r, n] = sum over k of x[r, k] * weight[n, k] in float32. The order of a sum does not depend on the other rows, nor on the
// number of threads, but on the instruction set. Reads the weight once for every kMaxHalfRows rows: for many rows a matrix product
// of converted blocks is faster. weight: float16 or bfloat16 [out, in], contiguous; x: float32 [rows, in]. Returns float32 [rows,
// out].
at::Tensor half_product(const at::Tensor& weight, const at::Tensor& x, InstructionSet set = best_instruction_set());

// weight: as above.
HalfView half_view_of(const at::Tensor& weight);

}  // namespace salient::quant
