#include "quant/gram_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <ostream>
#include <vector>

#include "quant/adaround.h"
#include "quant/code_descent.h"
#include "quant/correlated_gram.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using test::errors_by_row;
using test::random_matrix;
using test::total;

// Tokens of one kind of text: channels are mixtures of a quarter as many sources, `kind` says which, plus noise of their own.
at::Tensor tokens_of(int64_t tokens, int64_t channels, uint64_t kind, uint64_t seed) {
  const int64_t sources = channels / 4;
  const at::Tensor mixed = at::mm(random_matrix(tokens, sources, seed), random_matrix(sources, channels, kind, /*outliers=*/true));
  return mixed / std::sqrt(static_cast<double>(sources)) + 0.3 * random_matrix(tokens, channels, seed + 1);
}

InputStatistics statistics_of(const at::Tensor& seen, const at::Tensor& held) {
  InputStatistics statistics = make_input_statistics(seen.size(1), at::kCPU);
  accumulate(statistics, seen);
  if (held.defined()) accumulate_held_back(statistics, held);
  finish(statistics);
  return statistics;
}

RoundingOptions by_gram(std::optional<double> off_diagonal, int sweeps = 2) {
  RoundingOptions options;
  options.kind = RoundingKind::kGram;
  options.off_diagonal = off_diagonal;
  options.sweeps = sweeps;
  return options;
}

WeightToRound plain(const at::Tensor& weight, const AffineOptions& options) { return {weight, options, {}}; }

// Error of the outputs over `rows` and summed over the channels, for each of the rows, in float64 and from the rows themselves.
double error_on(const at::Tensor& rows, const QuantizedWeight& quantized, const at::Tensor& weight) {
  const at::Tensor d = dequantize(quantized).to(at::kDouble) - weight.to(at::kDouble);
  return at::mm(rows.to(at::kDouble), d.t()).square().sum().item<double>() / static_cast<double>(rows.size(0));
}

// What compensation with a factor makes of a weight, without the choice between it and rounding to nearest.
QuantizedWeight compensated(const at::Tensor& weight, const at::Tensor& gram, double off_diagonal, const AffineOptions& options,
                            const RoundingOptions& rounding) {
  at::Tensor trusted = gram * off_diagonal;
  trusted.diagonal().copy_(gram.diagonal());
  QuantizedWeight result = round_compensated(weight, factorize_gram(trusted, rounding), options);
  descend_codes(result, weight, trusted, options, rounding.sweeps);
  return result;
}

int64_t worse_rows(const QuantizedWeight& quantized, const QuantizedWeight& nearest, const at::Tensor& weight,
                   const at::Tensor& gram) {
  const std::vector<double> after = errors_by_row(quantized, weight, gram);
  const std::vector<double> before = errors_by_row(nearest, weight, gram);
  int64_t worse = 0;
  for (size_t row = 0; row < after.size(); ++row) worse += after[row] > before[row] * (1 + 1e-5) ? 1 : 0;
  return worse;
}

struct Kind {
  int64_t tokens;
  AffineOptions options;
  RoundingOptions rounding;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.tokens << " tokens, " << kind.options.bits << " bits"; }

class GramRounding : public testing::TestWithParam<Kind> {};

TEST_P(GramRounding, NoRowIsWorseThanNearest) {
  const Kind& kind = GetParam();
  const at::Tensor x = tokens_of(kind.tokens, 160, 1, 2);
  const InputStatistics statistics = statistics_of(x, tokens_of(kind.tokens / 4, 160, 1, 4));
  const at::Tensor weight = random_matrix(200, 160, 3);
  const RoundedWeights rounded = round_weights({plain(weight, kind.options)}, statistics, kind.rounding);
  const QuantizedWeight nearest = quantize_affine(weight, kind.options);
  EXPECT_EQ(worse_rows(rounded.weights[0].weight, nearest, weight, statistics.gram), 0);
  EXPECT_LT(total(errors_by_row(rounded.weights[0].weight, weight, statistics.gram)),
            0.9 * total(errors_by_row(nearest, weight, statistics.gram)));
}

INSTANTIATE_TEST_SUITE_P(Kinds, GramRounding,
                         testing::Values(Kind{800, {4, 32, true}, by_gram({})}, Kind{800, {2, 160, true}, by_gram(0.2, 0)},
                                         Kind{60, {3, 80, false}, by_gram(0.1)}, Kind{800, {8, 160, true}, by_gram(1.0, 0)}));

// Channels that hardly correlate: compensation alone makes some rows worse, which then stay rounded to nearest.
TEST(GramRoundingGuard, KeepsNearestWhereCompensationIsWorse) {
  const AffineOptions options{2, 160, true};
  const InputStatistics statistics = statistics_of(random_matrix(4000, 160, 2), {});
  const at::Tensor weight = random_matrix(200, 160, 3);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  EXPECT_GT(worse_rows(compensated(weight, statistics.gram, 0.5, options, by_gram(0.5, 0)), nearest, weight, statistics.gram), 0);
  const RoundedWeights guarded = round_weights({plain(weight, options)}, statistics, by_gram(0.5, 0));
  EXPECT_EQ(worse_rows(guarded.weights[0].weight, nearest, weight, statistics.gram), 0);
  EXPECT_FALSE(guarded.weights[0].weight.codes.equal(nearest.codes));
}

TEST(GramRoundingFactor, IsOneWithManyRowsOfTheSameKind) {
  const InputStatistics statistics = statistics_of(tokens_of(6000, 128, 5, 6), tokens_of(600, 128, 5, 8));
  const at::Tensor weight = random_matrix(64, 128, 9);
  const RoundedWeights rounded = round_weights({plain(weight, {4, 32, true})}, statistics, by_gram({}));
  EXPECT_EQ(rounded.off_diagonal, 1.0);
  EXPECT_DOUBLE_EQ(rounded.damping, 0.01);
  EXPECT_LT(rounded.weights[0].held_back_error, 0.6 * rounded.weights[0].held_back_nearest);
}

// Fewer rows than channels: full trust would make other rows of the very same kind worse than rounding to nearest.
TEST(GramRoundingFactor, IsSmallWithFewRows) {
  const AffineOptions options{4, 32, true};
  const at::Tensor seen = tokens_of(24, 128, 5, 6);
  const at::Tensor held = tokens_of(600, 128, 5, 8);
  const InputStatistics statistics = statistics_of(seen, held);
  const at::Tensor weight = random_matrix(64, 128, 9);
  const RoundedWeights rounded = round_weights({plain(weight, options)}, statistics, by_gram({}));
  EXPECT_LE(rounded.off_diagonal, 0.7);
  EXPECT_LE(rounded.weights[0].held_back_error, rounded.weights[0].held_back_nearest);
  const QuantizedWeight bold = compensated(weight, at::mm(seen.t(), seen), 1.0, options, by_gram({}));
  EXPECT_GT(error_on(held, bold, weight), 1.1 * rounded.weights[0].held_back_error);
}

// What was learnt from one kind of text is wrong for another.
TEST(GramRoundingFactor, IsSmallWithRowsOfAnotherKind) {
  const InputStatistics statistics = statistics_of(tokens_of(6000, 128, 5, 6), tokens_of(600, 128, 77, 8));
  const at::Tensor weight = random_matrix(64, 128, 9);
  const RoundedWeights rounded = round_weights({plain(weight, {4, 32, true})}, statistics, by_gram({}));
  EXPECT_LE(rounded.off_diagonal, 0.4);
  EXPECT_LE(rounded.weights[0].held_back_error, rounded.weights[0].held_back_nearest);
}

TEST(GramRoundingErrors, AgreeWithFloat64) {
  for (const int64_t tokens : {60, 4000}) {
    SCOPED_TRACE(tokens);
    const at::Tensor seen = tokens_of(tokens, 128, 5, 6);
    const at::Tensor held = tokens_of(300, 128, 5, 8);
    const InputStatistics statistics = statistics_of(seen, held);
    const std::vector<WeightToRound> weights = {plain(random_matrix(48, 128, 10), {4, 32, true}),
                                                plain(random_matrix(31, 128, 11), {3, 128, false})};
    const RoundedWeights rounded = round_weights(weights, statistics, by_gram({}));
    ASSERT_EQ(rounded.weights.size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      const auto& [weight, options, clip, start, known] = weights[i];
      const double nearest = error_on(held, quantize_affine(weight, options), weight);
      EXPECT_NEAR(rounded.weights[i].held_back_nearest, nearest, 1e-4 * nearest);
      ASSERT_GT(rounded.off_diagonal, 0.0);
      const QuantizedWeight from_seen = compensated(weight, at::mm(seen.t(), seen), rounded.off_diagonal, options, by_gram({}));
      const double error = error_on(held, from_seen, weight);
      EXPECT_NEAR(rounded.weights[i].held_back_error, error, 0.01 * error);
      EXPECT_LT(rounded.weights[i].held_back_error, 0.99 * nearest);
    }
  }
}

// The choice is made on some of the rows of a large weight: its errors still stand for all of them.
TEST(GramRoundingErrors, StandForAllRowsOfALargeWeight) {
  const AffineOptions options{4, 32, true};
  const at::Tensor held = tokens_of(300, 64, 5, 8);
  const InputStatistics statistics = statistics_of(tokens_of(1000, 64, 5, 6), held);
  const at::Tensor weight = random_matrix(1000, 64, 12);
  const RoundedWeights rounded = round_weights({plain(weight, options)}, statistics, by_gram({}));
  const double nearest = error_on(held, quantize_affine(weight, options), weight);
  EXPECT_NEAR(rounded.weights[0].held_back_nearest, nearest, 0.1 * nearest);
  const double stored = error_on(held, rounded.weights[0].weight, weight);  // the held-back rows helped, a little
  EXPECT_NEAR(rounded.weights[0].held_back_error, stored, 0.15 * stored);
  const ClipRange clip{at::full({1000, 2}, 0.7), at::full({1000, 2}, 0.7)};
  const RoundedWeights clipped = round_weights({{weight, options, clip}}, statistics, by_gram({}));
  const double clipped_nearest = error_on(held, quantize_affine(weight, options, &clip), weight);
  EXPECT_NEAR(clipped.weights[0].held_back_nearest, clipped_nearest, 0.2 * clipped_nearest);
  EXPECT_GT(clipped_nearest, 1.3 * nearest);
  EXPECT_TRUE(clipped.weights[0].weight.scales.equal(quantize_affine(weight, options, &clip).scales));
}

TEST(GramRoundingFactor, CanBeFixed) {
  const AffineOptions options{4, 32, true};
  const InputStatistics statistics = statistics_of(tokens_of(1000, 128, 5, 6), tokens_of(300, 128, 5, 8));
  const at::Tensor weight = random_matrix(64, 128, 9);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  const RoundedWeights none = round_weights({plain(weight, options)}, statistics, by_gram(0.0));
  EXPECT_TRUE(none.weights[0].weight.codes.equal(nearest.codes));
  EXPECT_TRUE(none.weights[0].weight.scales.equal(nearest.scales));
  EXPECT_EQ(none.off_diagonal, 0.0);
  double last = total(errors_by_row(nearest, weight, statistics.gram));
  for (const double factor : {0.5, 1.0}) {
    const RoundedWeights fixed = round_weights({plain(weight, options)}, statistics, by_gram(factor));
    EXPECT_EQ(fixed.off_diagonal, factor);
    const double error = total(errors_by_row(fixed.weights[0].weight, weight, statistics.gram));
    EXPECT_LT(error, last);
    last = error;
  }
}

// Nothing to choose by: all is trusted, and nothing is said about other rows.
TEST(GramRoundingFactor, WithoutHeldBackRows) {
  const at::Tensor weight = random_matrix(32, 64, 9);
  const at::Tensor x = tokens_of(500, 64, 5, 6);
  InputStatistics all_held = make_input_statistics(64, at::kCPU);
  accumulate_held_back(all_held, x);
  finish(all_held);
  const RoundedWeights from_all = round_weights({plain(weight, {4, 32, true})}, statistics_of(x, {}), by_gram({}));
  for (const RoundedWeights& rounded : {from_all, round_weights({plain(weight, {4, 32, true})}, all_held, by_gram({}))}) {
    EXPECT_EQ(rounded.off_diagonal, 1.0);
    EXPECT_EQ(rounded.weights[0].held_back_nearest, -1);
    EXPECT_EQ(rounded.weights[0].held_back_error, -1);
    EXPECT_TRUE(rounded.weights[0].weight.codes.equal(from_all.weights[0].weight.codes));
  }
  const RoundedWeights nothing = round_weights({plain(weight, {4, 32, true})}, make_input_statistics(64, at::kCPU), by_gram({}));
  EXPECT_TRUE(nothing.weights[0].weight.codes.equal(quantize_affine(weight, {4, 32, true}).codes));
  EXPECT_EQ(nothing.off_diagonal, -1);
}

TEST(GramRoundingColumns, AreWhatTheInputIsDividedBy) {
  const AffineOptions options{4, 32, true};
  const at::Tensor scales = random_matrix(1, 128, 13)[0].abs() + 0.1;
  const at::Tensor seen = tokens_of(900, 128, 5, 6);
  const at::Tensor held = tokens_of(300, 128, 5, 8);
  const WeightToRound weight = plain((random_matrix(40, 128, 9) * scales).contiguous(), options);
  const RoundedWeights expected = round_weights({weight}, statistics_of(seen / scales, held / scales), by_gram({}));
  const RoundedWeights found = round_weights({weight}, divided(statistics_of(seen, held), scales), by_gram({}));
  const auto different = [&](const RoundedWeights& other) {
    return (other.weights[0].weight.codes != expected.weights[0].weight.codes).sum().item<int64_t>();
  };
  EXPECT_EQ(found.off_diagonal, expected.off_diagonal);
  EXPECT_LE(different(found), 40 * 128 / 200);
  EXPECT_GT(different(round_weights({weight}, statistics_of(seen, held), by_gram({}))), 40 * 128 / 20);
  EXPECT_NEAR(found.weights[0].held_back_nearest, expected.weights[0].held_back_nearest,
              1e-4 * expected.weights[0].held_back_nearest);
  EXPECT_NEAR(found.weights[0].held_back_error, expected.weights[0].held_back_error, 0.01 * expected.weights[0].held_back_error);
}

TEST(GramRoundingKinds, NearestAndAdaround) {
  const AffineOptions options{3, 32, true};
  const InputStatistics statistics = statistics_of(tokens_of(500, 64, 5, 6), tokens_of(100, 64, 5, 8));
  const at::Tensor weight = random_matrix(16, 64, 9);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  RoundingOptions rounding = by_gram({});
  rounding.kind = RoundingKind::kNearest;
  const RoundedWeights rounded = round_weights({plain(weight, options)}, statistics, rounding);
  EXPECT_TRUE(rounded.weights[0].weight.codes.equal(nearest.codes));
  EXPECT_EQ(rounded.off_diagonal, -1);
  rounding.kind = RoundingKind::kAdaround;
  const RoundedWeights relaxed = round_weights({plain(weight, options)}, statistics, rounding);
  EXPECT_FALSE(relaxed.weights[0].weight.codes.equal(nearest.codes));
  EXPECT_EQ(worse_rows(relaxed.weights[0].weight, nearest, weight, statistics.gram), 0);
}

}  // namespace
}  // namespace salient::quant
