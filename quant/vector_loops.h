// The loops that row-wise searches and statistics spend their time in, built for several instruction sets; the best one is chosen
// when the program starts.
#pragma once

#include <cstdint>

namespace salient::quant {

// y[i] += factor * x[i] for i in 0 .. n-1.
void add_multiple(float* y, const float* x, float factor, int64_t n);
// sum of a[i] * b[i], in float64.
double dot(const float* a, const float* b, int64_t n);

// sum[i] += |x[i]| for i in 0 .. n-1.
void add_magnitudes(double* sum, const float* x, int64_t n);

}  // namespace salient::quant
