#include "quant/input_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

TEST(InputStatistics, ErrorFromTheGramMatrixEqualsTheErrorOverTokens) {
  const at::Tensor x = test::random_matrix(300, 64, 1, true);
  const at::Tensor change = test::random_matrix(20, 64, 2) * 0.01;
  InputStatistics statistics = make_input_statistics(64, at::kCPU);
  accumulate(statistics, x.narrow(0, 0, 100).view({2, 50, 64}));
  accumulate(statistics, x.narrow(0, 100, 200));
  finish(statistics);
  EXPECT_EQ(statistics.rows, 300);

  const at::Tensor outputs = at::mm(x.to(at::kDouble), change.to(at::kDouble).t());
  const double expected = (outputs * outputs).sum().item<double>() / 300;
  EXPECT_NEAR(output_error(change, statistics.gram, statistics.rows), expected, 1e-4 * expected);
  const at::Tensor by_row = (outputs * outputs).sum(0) / 300;
  const at::Tensor found = output_error_by_row(change, statistics.gram, statistics.rows).to(at::kDouble);
  EXPECT_LT(((found - by_row) / by_row).abs().max().item<double>(), 1e-4);
}

// Wide enough for several blocks of the symmetric product, the last of them narrower.
TEST(InputStatistics, BlocksOfTheGramMatrixFitTogether) {
  const at::Tensor x = test::random_matrix(100, 300, 4, true);
  InputStatistics statistics = make_input_statistics(300, at::kCPU);
  accumulate(statistics, x);
  finish(statistics);
  const at::Tensor exact = at::mm(x.to(at::kDouble).t(), x.to(at::kDouble));
  EXPECT_LT((statistics.gram - exact).abs().max().item<double>(), 1e-5 * exact.abs().max().item<double>());
  const at::Tensor change = test::random_matrix(7, 300, 5);
  const at::Tensor outputs = at::mm(x.to(at::kDouble), change.to(at::kDouble).t());
  const double expected = (outputs * outputs).sum().item<double>() / 100;
  EXPECT_NEAR(output_error(change, statistics.gram, 100), expected, 1e-4 * expected);
}

TEST(InputStatistics, MeanAbs) {
  const at::Tensor x = test::random_matrix(50, 16, 3);
  InputStatistics statistics = make_input_statistics(16, at::kCPU);
  accumulate(statistics, x);
  EXPECT_LT((mean_abs(statistics) - x.abs().mean(0)).abs().max().item<float>(), 1e-6f);
}

}  // namespace
}  // namespace salient::quant
