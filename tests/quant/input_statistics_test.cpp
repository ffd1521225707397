#include "quant/input_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <limits>

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

TEST(InputStatistics, PointsOfTheCurveHoldTheFirstRowsAndChangeNothingElse) {
  const at::Tensor x = test::random_matrix(100, 40, 6, true);
  InputStatistics plain = make_input_statistics(40, at::kCPU);
  InputStatistics curved = make_input_statistics(40, at::kCPU);
  for (InputStatistics* statistics : {&plain, &curved}) accumulate(*statistics, x);
  at::Tensor broken = x.narrow(0, 10, 15).clone();
  broken[0][3] = std::numeric_limits<float>::quiet_NaN();
  accumulate_curve(curved, x.narrow(0, 0, 10));
  end_curve_point(curved, 1);
  accumulate_curve(curved, broken);
  accumulate_curve(curved, x.narrow(0, 25, 25));
  end_curve_point(curved, 5);
  for (InputStatistics* statistics : {&plain, &curved}) finish(*statistics);
  EXPECT_TRUE(plain.gram.equal(curved.gram));
  EXPECT_EQ(curved.rows, 100);
  EXPECT_EQ(curved.skipped_rows, 0);
  ASSERT_EQ(curved.curve.size(), 2u);
  EXPECT_EQ(curved.curve[0].blocks, 1);
  EXPECT_EQ(curved.curve[1].blocks, 5);
  const at::Tensor first = x.narrow(0, 0, 10).to(at::kDouble);
  const at::Tensor half = at::cat({x.narrow(0, 0, 10), x.narrow(0, 11, 39)}).to(at::kDouble);
  EXPECT_TRUE(curved.curve[0].gram.to(at::kDouble).allclose(at::mm(first.t(), first), 1e-4, 1e-4));
  EXPECT_TRUE(curved.curve[1].gram.to(at::kDouble).allclose(at::mm(half.t(), half), 1e-4, 1e-4));
}

}  // namespace
}  // namespace salient::quant
