#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"

namespace salient::eval {
namespace {

TEST(Statistics, MeanHasTheSampleStandardError) {
  const Estimate e = mean(std::vector<double>{1, 2, 3, 4});  // sample variance 5/3
  EXPECT_DOUBLE_EQ(e.value, 2.5);
  EXPECT_DOUBLE_EQ(*e.stderr_of_mean, std::sqrt(5.0 / 3.0 / 4.0));
  EXPECT_FALSE(mean(std::vector<double>{7}).stderr_of_mean.has_value());
  EXPECT_THROW(mean(std::vector<double>{}), Error);
}

TEST(Statistics, PairedDifferenceIgnoresWhatPairsShare) {
  const std::vector<double> base = {0, 1, 0, 1, 1, 0};
  std::vector<double> shifted = base;
  for (double& v : shifted) v += 0.25;
  const Estimate d = paired_difference(shifted, base);
  EXPECT_DOUBLE_EQ(d.value, 0.25);
  EXPECT_DOUBLE_EQ(*d.stderr_of_mean, 0);
  EXPECT_THROW(paired_difference(base, std::vector<double>{1}), Error);
}

TEST(Statistics, RetentionAndItsError) {
  const std::vector<double> base = {1, 1, 1, 0};
  const std::vector<double> score = {1, 1, 0, 0};
  const auto r = retention(score, base);
  ASSERT_TRUE(r.has_value());
  EXPECT_DOUBLE_EQ(r->value, 2.0 / 3.0);
  // Residuals s - r b: 1/3, 1/3, -2/3, 0; sample variance 2/9; sqrt(2/9) / 2 / (3/4).
  EXPECT_NEAR(*r->stderr_of_mean, std::sqrt(2.0 / 9.0) / 2 / 0.75, 1e-12);
  EXPECT_FALSE(retention(score, std::vector<double>{0, 0, 0, 0}).has_value());
  EXPECT_DOUBLE_EQ(retention_above_chance(score, base, 0.25)->value, 0.5);
  EXPECT_FALSE(retention_above_chance(score, base, 0.75).has_value());
}

TEST(Statistics, QuantilesInterpolate) {
  std::vector<float> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 4);
  EXPECT_DOUBLE_EQ(quantile(values, 0.0), 1);
  EXPECT_NEAR(quantile(values, 0.9), 3.7, 1e-12);
}

}  // namespace
}  // namespace salient::eval
