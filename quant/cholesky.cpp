#include "quant/cholesky.h"

#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>

#include <algorithm>
#include <tuple>

#include "quant/fixed_parts.h"
#include "quant/fixed_product.h"

namespace salient::quant {
namespace {
constexpr int64_t kFactoredColumns = 128;  // that are factorized at a time
constexpr int64_t kSolvedRows = 32;        // below them that are solved for at a time
}  // namespace

bool factorize_cholesky(const at::Tensor& matrix) {
  const int64_t n = matrix.size(0);
  for (int64_t begin = 0; begin < n; begin += kFactoredColumns) {
    const int64_t count = std::min(kFactoredColumns, n - begin);
    const at::Tensor diagonal = matrix.narrow(0, begin, count).narrow(1, begin, count);
    at::Tensor factor;
    bool definite = false;
    in_one_thread([&] {
      at::Tensor info;
      std::tie(factor, info) = at::linalg_cholesky_ex(diagonal);
      definite = info.item<int>() == 0;
    });
    if (!definite) return false;
    diagonal.copy_(factor);
    const int64_t rest = n - begin - count;
    if (rest == 0) break;
    const at::Tensor below = matrix.narrow(0, begin + count, rest).narrow(1, begin, count);
    in_fixed_parts(rest, kSolvedRows, [&](int64_t first, int64_t last) {
      const at::Tensor rows = below.narrow(0, first, last - first);
      rows.copy_(at::linalg_solve_triangular(factor.t(), rows, /*upper=*/true, /*left=*/false));
    });
    subtract_lower_outer(matrix.narrow(0, begin + count, rest).narrow(1, begin + count, rest), below);
  }
  matrix.tril_();
  return true;
}

}  // namespace salient::quant
