#include "pipeline/tensor_change.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/golden_checkpoint.h"

namespace salient::pipeline {
namespace {

const at::Tensor kMatrix = test::golden_tensor("matrix", {48, 64}, 0, 1);
at::Tensor factors(const char* name, int64_t n) { return test::golden_tensor(name, {n}, 0, 1).exp(); }  // 1/e to e

TEST(TensorChange, SizesAreThoseOfTheDefinition) {
  const at::Tensor before = at::tensor({1.0F, -2.0F, 0.0F, 4.0F}).view({2, 2});
  const at::Tensor after = at::tensor({1.5F, -2.0F, 0.0F, 3.0F}).view({2, 2});
  const ChangeSizes sizes = change_sizes(before, after);
  EXPECT_FALSE(sizes.identical);
  EXPECT_TRUE(sizes.finite);
  EXPECT_DOUBLE_EQ(sizes.mean_absolute, 1.5 / 4);
  EXPECT_DOUBLE_EQ(sizes.max_absolute, 1.0);
  EXPECT_DOUBLE_EQ(sizes.mean_relative, 1.5 / 7);
  EXPECT_DOUBLE_EQ(sizes.max_relative, 0.5);
  EXPECT_TRUE(change_sizes(before, before.clone()).identical);
  EXPECT_FALSE(change_sizes(before, at::full({2, 2}, NAN)).finite);
  // Of other dtypes with the same values.
  EXPECT_EQ(change_sizes(before, before.to(at::kHalf)).max_absolute, 0);
}

TEST(TensorChange, RowsAndColumnsAreFoundUpToOneCommonFactor) {
  const at::Tensor rows = factors("rows", 48);
  const at::Tensor columns = factors("columns", 64);
  const ScalingFit fit = fit_scaling(kMatrix, rows.unsqueeze(1) * kMatrix * columns, 1e-5);
  EXPECT_TRUE(fit.rows_moved);
  EXPECT_TRUE(fit.columns_moved);
  EXPECT_LT(fit.residual, 1e-6);
  for (size_t i = 0; i < 48; ++i) {
    for (size_t j = 0; j < 64; ++j) {
      const double expected =
          std::log(rows[static_cast<int64_t>(i)].item<double>() * columns[static_cast<int64_t>(j)].item<double>());
      ASSERT_NEAR(fit.log_rows[i] + fit.log_columns[j], expected, 1e-5);
    }
  }
}

TEST(TensorChange, OneDirectionIsFoundExactly) {
  const at::Tensor rows = factors("rows", 48);
  const at::Tensor columns = factors("columns", 64);
  const ScalingFit by_columns = fit_scaling(kMatrix, kMatrix * columns, 1e-5);
  EXPECT_FALSE(by_columns.rows_moved);
  EXPECT_TRUE(by_columns.columns_moved);
  for (size_t j = 0; j < 64; ++j)
    ASSERT_NEAR(by_columns.log_columns[j], std::log(columns[static_cast<int64_t>(j)].item<double>()), 1e-5);
  const ScalingFit by_rows = fit_scaling(kMatrix, kMatrix * rows.unsqueeze(1), 1e-5);
  EXPECT_TRUE(by_rows.rows_moved);
  EXPECT_FALSE(by_rows.columns_moved);
  for (size_t i = 0; i < 48; ++i) ASSERT_NEAR(by_rows.log_rows[i], std::log(rows[static_cast<int64_t>(i)].item<double>()), 1e-5);
}

TEST(TensorChange, ZerosAndDeadChannelsAreNoObstacle) {
  at::Tensor sparse = kMatrix * kMatrix.abs().gt(0.4);
  sparse.select(1, 5).zero_();
  sparse.select(0, 7).zero_();
  const at::Tensor columns = factors("columns", 64);
  const ScalingFit fit = fit_scaling(sparse, sparse * columns, 1e-3);
  EXPECT_LT(fit.residual, 1e-3);
  EXPECT_TRUE(std::isnan(fit.log_columns[5]));
  EXPECT_TRUE(std::isnan(fit.log_rows[7]));
  EXPECT_NEAR(fit.log_columns[6], std::log(columns[6].item<double>()), 1e-3);
}

TEST(TensorChange, RoundingToFewBitsIsNoScaling) {
  const at::Tensor scaled = kMatrix * factors("columns", 64);
  const double bfloat16 =
      fit_scaling(kMatrix.to(at::kBFloat16), (kMatrix.to(at::kBFloat16) * factors("columns", 64)).to(at::kBFloat16), 4e-3).residual;
  EXPECT_GT(bfloat16, 1e-4);
  EXPECT_LT(bfloat16, 3e-3);
  const at::Tensor step = scaled.abs().amax(1, true) / 127;
  EXPECT_GT(fit_scaling(kMatrix, (scaled / step).round() * step, 1e-5).residual, 5e-3);
  EXPECT_GT(fit_scaling(kMatrix, test::golden_tensor("another", {48, 64}, 0, 1), 1e-5).residual, 0.3);
}

}  // namespace
}  // namespace salient::pipeline
