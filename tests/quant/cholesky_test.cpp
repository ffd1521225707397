#include "quant/cholesky.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <limits>

#include "support/thread_count.h"

namespace salient::quant {
namespace {

// Symmetric with eigenvalues from about `least` on.
at::Tensor definite(int64_t n, double least) {
  const at::Tensor x = at::randn({n, n + 8}, at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(n)), at::kDouble);
  return at::matmul(x, x.t()) / static_cast<double>(n) + least * at::eye(n, at::kDouble);
}

TEST(Cholesky, IsLapacksUpToRoundingWithTheSameBitsForAnyThreads) {
  for (const int64_t n : {1, 2, 127, 128, 129, 256, 300, 700}) {
    SCOPED_TRACE(n);
    const at::Tensor matrix = definite(n, 0.1);
    const at::Tensor expected = at::linalg_cholesky(matrix);
    at::Tensor first;
    for (const int threads : test::kThreadCounts) {
      const test::ThreadCount count(threads);
      for (const bool columns_together : {true, false}) {
        at::Tensor lower = matrix.to(at::kFloat);
        if (columns_together) lower = lower.t().contiguous().t();
        // What is above the diagonal is not read.
        lower.add_(at::ones_like(lower).mul_(std::numeric_limits<float>::quiet_NaN()).triu(1).nan_to_num(1e9));
        ASSERT_TRUE(factorize_cholesky(lower));
        EXPECT_LT((lower.to(at::kDouble) - expected).abs().max().item<double>(), 2e-5);
        if (!columns_together) continue;  // the layout is the caller's, the threads are not
        if (!first.defined()) first = lower;
        EXPECT_TRUE(first.equal(lower)) << threads << " threads";
      }
    }
    at::Tensor wide = matrix.clone();
    ASSERT_TRUE(factorize_cholesky(wide));
    EXPECT_LT((wide - expected).abs().max().item<double>(), 1e-10);
  }
}

TEST(Cholesky, SaysWhereThereIsNone) {
  for (const int64_t n : {1, 100, 300}) {
    for (const int64_t place : {int64_t{0}, n / 2, n - 1}) {
      at::Tensor indefinite = definite(n, 0.1).to(at::kFloat);
      indefinite[place][place] = -1.0;
      EXPECT_FALSE(factorize_cholesky(indefinite));
      at::Tensor broken = definite(n, 0.1).to(at::kFloat);
      broken[place][place] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_FALSE(factorize_cholesky(broken));
    }
  }
}

}  // namespace
}  // namespace salient::quant
