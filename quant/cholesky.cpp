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
constexpr int64_t kUpdateColumns = 256;    // after which what is right of them is brought up to date
constexpr int64_t kSolvedRows = 32;        // below them that are solved for at a time

// The columns [begin, begin + count), brought up to date before, of all rows from `begin` on.
bool factorize_columns(const at::Tensor& matrix, int64_t begin, int64_t count) {
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
  const int64_t rest = matrix.size(0) - begin - count;
  const at::Tensor below = matrix.narrow(0, begin + count, rest).narrow(1, begin, count);
  in_fixed_parts(rest, kSolvedRows, [&](int64_t first, int64_t last) {
    const at::Tensor rows = below.narrow(0, first, last - first);
    rows.copy_(at::linalg_solve_triangular(factor.t(), rows, /*upper=*/true, /*left=*/false));
  });
  return true;
}

}  // namespace

bool factorize_cholesky(const at::Tensor& matrix) {
  if (!matrix.is_cpu()) {
    const auto [factor, info] = at::linalg_cholesky_ex(matrix);
    if (info.item<int>() != 0) return false;
    matrix.copy_(factor);
    return true;
  }
  const int64_t n = matrix.size(0);
  for (int64_t begin = 0; begin < n; begin += kUpdateColumns) {
    const int64_t end = std::min(n, begin + kUpdateColumns);
    for (int64_t from = begin; from < end; from += kFactoredColumns) {
      const int64_t to = std::min(end, from + kFactoredColumns);
      if (!factorize_columns(matrix, from, to - from)) return false;
      if (to == end) break;
      const at::Tensor below = matrix.narrow(0, to, n - to).narrow(1, from, to - from);
      add_product(matrix.narrow(0, to, n - to).narrow(1, to, end - to), below, below.narrow(0, 0, end - to).t(), -1);
    }
    if (end < n) {
      subtract_lower_outer(matrix.narrow(0, end, n - end).narrow(1, end, n - end),
                           matrix.narrow(0, end, n - end).narrow(1, begin, end - begin));
    }
  }
  // Along the numbers that lie together: libtorch goes row by row otherwise.
  if (matrix.stride(0) == 1) {
    matrix.t().triu_();
  } else {
    matrix.tril_();
  }
  return true;
}

}  // namespace salient::quant
