// Seeded matrices for tests: the same numbers on every platform.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <random>

namespace salient::quant::test {

// float32 [rows, columns], roughly normal; with `outliers` every 17th column is 20 times larger.
inline at::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed, bool outliers = false) {
  std::mt19937_64 engine(seed);
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  float* data = result.data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) {
    double sum = -6.0;  // the sum of 12 uniform numbers is nearly normal
    for (int k = 0; k < 12; ++k) sum += static_cast<double>(engine() >> 11) * 0x1.0p-53;
    const bool outlier = outliers && (i % columns) % 17 == 5;
    data[i] = static_cast<float>(outlier ? 20.0 * sum : sum);
  }
  return result;
}

}  // namespace salient::quant::test
