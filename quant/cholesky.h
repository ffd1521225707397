// The Cholesky factorisation with the same bits for every number of threads (quant/fixed_parts.h), which LAPACK's is not: blocks of
// columns from left to right, each factorized in one thread, what is right of it brought up to date by products (Golub and Van
// Loan, "Matrix Computations", 4.2.5).
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::quant {

// In place: L with matrix = L L^T, zero above the diagonal. Only what is on and below the diagonal is read. False, and undefined
// contents, where the matrix is not positive definite in floating point. matrix: float32 [n, n] on the CPU, fastest with columns
// that lie together; float64 too, whose products are libtorch's and follow the threads.
bool factorize_cholesky(const at::Tensor& matrix);

}  // namespace salient::quant
