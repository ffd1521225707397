// Products of float32 matrices. Each sum begins with 0 and takes its products one by one in the order of the inner dimension, by
// fused multiplications and additions (kPortable: first rounded products, then sums). So a number of the result has the same bits
// whatever stands beside it, with any number of threads and any of the other instruction sets. Memory beside the result: 0.5 MB for
// each thread that ever ran one, kept.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/kernels/instruction_set.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::quant {

// y[r, n] = sum over k of x[r, k] * weight[n, k].
// x: [rows, in]; weight: [out, in], the numbers of a channel next to each other; both float32 on the CPU. Returns float32
// [rows, out].
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, InstructionSet set = best_instruction_set());

struct FloatProductOptions {
  bool adds = false;  // share * a b to what is there; otherwise a b takes its place
  float share = 1;
  Triangle wanted = Triangle::kWhole;  // of a square result of at most kFloatTileChannels rows
};

// to = a b, or to += share * a b, in all threads unless it is called in a parallel region. a: [m, k]; b: [k, n]; to: float32 [m, n]
// on the CPU, whose rows or columns lie together.
// Errors: internal for other dtypes, devices or sizes.
void multiply_floats(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, const FloatProductOptions& options = {},
                     InstructionSet set = best_instruction_set());

// Scratch of the calling thread for TileKernels::float_tile.
float* float_scratch_of_thread();

}  // namespace salient::quant
