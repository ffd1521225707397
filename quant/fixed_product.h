// Matrix products of tensors on any device. float32 on the CPU, which is all that quantization multiplies there, goes to
// quant/kernels/float_product.h: the same bits for every number of threads, on AVX2 and AVX-512 alike. All else is libtorch's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace salient::quant {

// a b. a: [m, k], b: [k, n], or both with the same leading sizes.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

// to += share * a b. to: [m, n]; a: [m, k]; b: [k, n]
void add_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b, double share = 1.0);

// The upper half of to += rows^T rows, entries on and above the diagonal; what is below it is undefined then. Added up in `pieces`
// of the rows, one after the other: their numbers, together k. to: [n, n]; rows: [k, n]
void add_upper_gram(const at::Tensor& to, const at::Tensor& rows, const std::vector<int64_t>& pieces);

// What is below the diagonal from what is above it. matrix: [n, n]
void mirror_upper(const at::Tensor& matrix);

// The lower half of to -= a a^T; what is above the diagonal is undefined then. to: [n, n]; a: [n, k]
void subtract_lower_outer(const at::Tensor& to, const at::Tensor& a);

}  // namespace salient::quant
