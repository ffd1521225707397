#include "quant/vector_loops.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SALIENT_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default"), optimize("O3")))
#else
#define SALIENT_CLONES
#endif

#include <cmath>

namespace salient::quant {

SALIENT_CLONES void add_multiple(float* y, const float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

SALIENT_CLONES void add_magnitudes(double* sum, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<double>(std::fabs(x[i]));
}

SALIENT_CLONES double dot(const float* a, const float* b, int64_t n) {
  // Independent sums, because the compiler must not reorder one.
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
  }
  double sum = 0.0;
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace salient::quant
