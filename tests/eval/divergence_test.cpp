// Summaries of two models' distributions, from made-up positions. The measurement itself: tests/eval/model_scores_test.cpp.
#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

namespace salient::eval {
namespace {

// Two windows of 501 tokens: 500 losses and 501 divergences each.
PositionComparison comparison() {
  PositionComparison out{{501, {}}, {501, {}}, {}, {}};
  for (int i = 0; i < 1002; ++i) {
    out.kl.push_back(static_cast<float>(i) / 1000);
    out.same_top.push_back(i % 10 == 0 ? 0 : 1);
  }
  for (int i = 0; i < 1000; ++i) {
    const double base = 0.5;
    const double change = (i < 500 ? 0.1 : -0.3) * (i % 500) / 499;  // up to +0.1 in the first window, down to -0.3 in the second
    out.base.losses.push_back(static_cast<float>(-std::log(base)));
    out.model.losses.push_back(static_cast<float>(-std::log(base + change)));
  }
  return out;
}

TEST(Divergence, PercentilesOfKl) {
  const Divergence divergence = summarize(comparison());
  EXPECT_NEAR(divergence.kl_median, 0.5005, 1e-6);
  EXPECT_NEAR(divergence.kl_p90, 0.9009, 1e-6);
  EXPECT_NEAR(divergence.kl_p95, 0.95095, 1e-6);
  EXPECT_NEAR(divergence.kl_p99, 0.99099, 1e-6);
  EXPECT_NEAR(divergence.kl_p999, 0.999999, 1e-6);
  EXPECT_NEAR(divergence.kl_max, 1.001, 1e-6);
  EXPECT_EQ(divergence.positions, 1002);
}

TEST(Divergence, ChangeOfTheNextTokensProbability) {
  const Divergence divergence = summarize(comparison());
  EXPECT_EQ(divergence.scored, 1000);
  // Means of the windows: 0.05 and -0.15.
  EXPECT_NEAR(divergence.delta_p.value, -0.05, 1e-6);
  EXPECT_NEAR(*divergence.delta_p.stderr_of_mean, 0.1, 1e-6);
  double first = 0;
  for (int i = 0; i < 500; ++i) first += std::pow(0.1 * i / 499, 2) / 500;
  const double rms = std::sqrt(5 * first);  // the second window's squares are 9 times the first's
  EXPECT_NEAR(divergence.delta_p_rms.value, rms, 1e-6);
  EXPECT_NEAR(*divergence.delta_p_rms.stderr_of_mean, 4 * first / (2 * rms), 1e-6);
  ASSERT_EQ(kDeltaPercentiles[3], 50);
  EXPECT_NEAR(divergence.delta_p_percentiles[3], 0, 1e-6);
  ASSERT_EQ(kDeltaPercentiles[0], 1);
  EXPECT_NEAR(divergence.delta_p_percentiles[0], -0.3 * (499 - 9.99) / 499, 1e-6);
  ASSERT_EQ(kDeltaPercentiles[6], 99);
  EXPECT_NEAR(divergence.delta_p_percentiles[6], 0.1 * (499 - 9.99) / 499, 1e-6);
}

}  // namespace
}  // namespace salient::eval
