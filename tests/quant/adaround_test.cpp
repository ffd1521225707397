#include "quant/adaround.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/error.h"
#include "quant/correlated_gram.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using test::correlated_gram;
using test::errors_by_row;
using test::total;

class Adaround : public testing::TestWithParam<AffineOptions> {};

TEST_P(Adaround, NoRowWorseThanNearestAndTheSumMuchBetter) {
  const AffineOptions options = GetParam();
  const at::Tensor gram = correlated_gram(400, 96, 1);
  const at::Tensor weight = test::random_matrix(30, 96, 2);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  const QuantizedWeight found = round_adaptively(nearest, weight, gram, options);
  const std::vector<double> before = errors_by_row(nearest, weight, gram);
  const std::vector<double> after = errors_by_row(found, weight, gram);
  for (size_t row = 0; row < before.size(); ++row) EXPECT_LE(after[row], before[row]) << row;
  RecordProperty("error_ratio", std::to_string(total(after) / total(before)));
  EXPECT_LT(total(after), 0.4 * total(before));
  EXPECT_TRUE(found.scales.equal(nearest.scales));
  EXPECT_TRUE(found.zeros.equal(nearest.zeros));
  // Up or down: less than a step from the weight, or a little more where the rounded zero point leaves the end of a range outside.
  const at::Tensor steps = (dequantize(found) - weight).abs() / nearest.scales.repeat_interleave(options.group_size, 1);
  const at::Tensor inside = (found.codes > 0) & (found.codes < (1 << options.bits) - 1);
  EXPECT_LT((steps * inside.to(at::kFloat)).max().item<float>(), 1.51f);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Adaround,
                         testing::Values(AffineOptions{4, 32, true}, AffineOptions{3, 16, false}, AffineOptions{2, 96, true},
                                         AffineOptions{8, 48, true}));

// Few enough codes that every combination of up and down can be tried in float64.
TEST(AdaroundSmall, CloseToTheBestOfAllRoundings) {
  const AffineOptions options{3, 8, true};
  const at::Tensor gram = correlated_gram(60, 8, 3);
  const at::Tensor weight = test::random_matrix(12, 8, 4);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  double best_sum = 0;
  for (int64_t row = 0; row < 12; ++row) {
    double best = std::numeric_limits<double>::infinity();
    for (int mask = 0; mask < 256; ++mask) {
      double d[8];
      for (int64_t i = 0; i < 8; ++i) {
        const double scale = nearest.scales[row][0].item<double>();
        const double zero = nearest.zeros[row][0].item<double>();
        const double lower = std::clamp(std::floor(weight[row][i].item<double>() / scale + zero), 0.0, 6.0);
        d[i] = scale * (lower + (mask >> i & 1) - zero) - weight[row][i].item<double>();
      }
      double error = 0;
      for (int64_t i = 0; i < 8; ++i) {
        for (int64_t j = 0; j < 8; ++j) error += d[i] * gram[i][j].item<double>() * d[j];
      }
      best = std::min(best, error);
    }
    best_sum += best;
  }
  const double nearest_sum = total(errors_by_row(nearest, weight, gram));
  const double found = total(errors_by_row(round_adaptively(nearest, weight, gram, options), weight, gram));
  EXPECT_GE(found, best_sum * (1 - 1e-5));
  EXPECT_LT(found - best_sum, 0.3 * (nearest_sum - best_sum));
}

TEST(AdaroundOptions, TheSameEveryTimeAndNothingWithoutIterations) {
  const AffineOptions options{4, 32, true};
  const at::Tensor gram = correlated_gram(200, 64, 5);
  const at::Tensor weight = test::random_matrix(10, 64, 6);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  const QuantizedWeight once = round_adaptively(nearest, weight, gram, options);
  EXPECT_TRUE(once.codes.equal(round_adaptively(nearest, weight, gram, options).codes));
  EXPECT_TRUE(once.codes.equal(round_adaptively(nearest, weight, gram * 1024.0, options).codes));  // its scale does not matter
  EXPECT_TRUE(nearest.codes.equal(round_adaptively(nearest, weight, gram, options, {.iterations = 0}).codes));
  const double full = total(errors_by_row(once, weight, gram));
  EXPECT_LT(full, total(errors_by_row(round_adaptively(nearest, weight, gram, options, {.iterations = 10}), weight, gram)));
}

TEST(AdaroundTrouble, DeadAndBrokenChannels) {
  const AffineOptions options{4, 32, true};
  const at::Tensor weight = test::random_matrix(4, 64, 8);
  const at::Tensor gram = correlated_gram(80, 64, 9);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  EXPECT_TRUE(nearest.codes.equal(round_adaptively(nearest, weight, gram * 0.0, options).codes));
  EXPECT_TRUE(nearest.codes.equal(round_adaptively(nearest, weight, gram * std::nan(""), options).codes));
  EXPECT_TRUE(nearest.codes.equal(round_adaptively(nearest, weight, at::eye(64), options).codes));  // nothing to compensate
  EXPECT_THROW(round_adaptively(nearest, weight, at::eye(32), options), Error);
}

}  // namespace
}  // namespace salient::quant
