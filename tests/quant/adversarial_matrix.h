// Groups of numbers that quantizers go wrong on: constant, one-sided, all zero, subnormal, huge, with an outlier, on the edge
// between two codes.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <random>

namespace salient::quant::test {

inline constexpr int kGroupKinds = 14;

// Fills n numbers of one kind; all finite.
inline void fill_group(float* out, int64_t n, int kind, std::mt19937_64& engine) {
  const auto uniform = [&] { return static_cast<double>(engine() >> 11) * 0x1.0p-53; };
  const auto normal = [&] { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); };
  const double size = std::exp2(-20 + 32 * uniform());
  const int64_t chosen = static_cast<int64_t>(engine() % static_cast<uint64_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    double value = 0;
    switch (kind) {
      case 0: value = normal(); break;
      case 1: value = size * normal(); break;
      case 2: value = size; break;
      case 3: value = -size; break;
      case 4: value = 0; break;
      case 5: value = size * uniform(); break;
      case 6: value = -size * uniform(); break;
      case 7: value = 1e-40 * normal(); break;                                // subnormal in float32
      case 8: value = (engine() % 2 == 0 ? 3e38 : -3e38) * uniform(); break;  // near float32's end
      case 9: value = i == chosen ? 1e6 : 1e-3 * normal(); break;             // one outlier
      case 10: value = (static_cast<double>(engine() % 31) - 15) / 2; break;  // halves: edges between codes
      case 11: value = engine() % 2 == 0 ? size : -size; break;               // two values
      case 12: value = engine() % 2 == 0 ? -0.0 : 6e-8 * normal(); break;     // about fp16's least scale
      default: value = i == chosen ? size : 0.0; break;                       // one number that is not zero
    }
    out[i] = static_cast<float>(value);
  }
}

// float32 [rows, columns], each group of `group` numbers in a row of a kind of its own, in turn.
inline at::Tensor adversarial_matrix(int64_t rows, int64_t columns, int64_t group, uint64_t seed) {
  std::mt19937_64 engine(seed);
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  float* data = result.data_ptr<float>();
  for (int64_t g = 0; g < rows * columns / group; ++g)
    fill_group(data + g * group, group, static_cast<int>(g % kGroupKinds), engine);
  return result;
}

}  // namespace salient::quant::test
