// Products of float32 activations with float32 weights.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/kernels/instruction_set.h"

namespace salient::quant {

// y[r, n] = sum over k of x[r, k] * weight[n, k] in float32, added up in the order of k from 0 on, by fused multiplications and
// additions (kPortable: first rounded products, then sums). So a row has the same bits whatever the other rows are, with any number
// of threads and any of the other instruction sets. Memory beside the result: 0.5 MB for each thread that ever ran it, kept.
// x: [rows, in]; weight: [out, in], the numbers of a channel next to each other; both float32 on the CPU. Returns float32
// [rows, out].
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, InstructionSet set = best_instruction_set());

}  // namespace salient::quant
