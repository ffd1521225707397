// Gram matrices of correlated inputs for tests, and the slow float64 error that results are held against.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "quant/affine.h"
#include "quant/random_matrix.h"

namespace salient::quant::test {

// Of tokens whose channels are mixtures of a quarter as many sources plus noise of their own, some of them 20 times larger.
inline at::Tensor correlated_gram(int64_t tokens, int64_t columns, uint64_t seed) {
  const int64_t sources = columns / 4;
  const at::Tensor mixed = at::mm(random_matrix(tokens, sources, seed), random_matrix(sources, columns, seed + 1, true));
  const at::Tensor x = mixed / std::sqrt(static_cast<double>(sources)) + 0.3 * random_matrix(tokens, columns, seed + 2);
  return at::mm(x.t(), x);
}

// d G d^T of each row.
inline std::vector<double> errors_by_row(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram) {
  const at::Tensor d = dequantize(quantized).to(at::kDouble) - weight.to(at::kDouble);
  const at::Tensor errors = (at::mm(d, gram.to(at::kDouble)) * d).sum(1).contiguous();
  return {errors.const_data_ptr<double>(), errors.const_data_ptr<double>() + errors.numel()};
}

inline double total(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

}  // namespace salient::quant::test
