#include "quant/scale_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/error.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

// Mean squared change of the outputs over the tokens themselves, in float64.
double token_error(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options) {
  const at::Tensor stored = dequantize(quantize_affine((weight * s).contiguous(), options)).to(at::kDouble) / s.to(at::kDouble);
  const at::Tensor outputs = at::mm(x.to(at::kDouble), (stored - weight.to(at::kDouble)).t());
  return (outputs * outputs).sum().item<double>() / static_cast<double>(x.size(0));
}

InputStatistics statistics_of(const at::Tensor& x) {
  InputStatistics statistics = make_input_statistics(x.size(1), at::kCPU);
  accumulate(statistics, x);
  finish(statistics);
  return statistics;
}

TEST(ScaleSearch, ReportsTheTrueErrorsAndHelpsWithOutlierActivations) {
  const at::Tensor x = test::random_matrix(400, 128, 1, /*outliers=*/true);
  const at::Tensor a = test::random_matrix(48, 128, 2);
  const at::Tensor b = test::random_matrix(16, 128, 3);
  const AffineOptions options{4, 64, true};
  const ScaleSearchResult found = search_scales({a, b}, statistics_of(x), options, {});
  const at::Tensor one = at::arange(128, at::kFloat) * 0 + 1;
  const double rtn = token_error(x, a, one, options) + token_error(x, b, one, options);
  const double best = token_error(x, a, found.scales, options) + token_error(x, b, found.scales, options);
  EXPECT_NEAR(found.rtn_error, rtn, 1e-3 * rtn);
  EXPECT_NEAR(found.best_error, best, 1e-3 * best);
  EXPECT_LT(best, 0.7 * rtn);
  EXPECT_NE(found.kind, "identity");
}

TEST(ScaleSearch, NoCandidateOfTheGridIsBetter) {
  const at::Tensor x = test::random_matrix(200, 64, 4, true);
  const at::Tensor w = test::random_matrix(32, 64, 5);
  const AffineOptions options{3, 32, true};
  const ScaleSearchResult found = search_scales({w}, statistics_of(x), options, {});
  const at::Tensor mean = x.abs().mean(0);
  for (int i = 0; i <= 20; ++i) {
    at::Tensor s = mean.pow(i / 20.0).clamp_min(1e-4);
    s = s / (s.max() * s.min()).sqrt();
    EXPECT_LE(found.best_error, token_error(x, w, s, options) * 1.001) << i;
  }
}

TEST(ScaleSearch, NeverWorseThanRoundToNearest) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const at::Tensor x = test::random_matrix(64, 32, seed, seed % 2 == 0);
    const at::Tensor w = test::random_matrix(16, 32, seed + 100, seed % 3 == 0);
    const ScaleSearchResult found = search_scales({w}, statistics_of(x), {2, 16, true}, {5, DuoScaling::kBoth});
    EXPECT_LE(found.best_error, found.rtn_error);
  }
}

TEST(ScaleSearch, DeadInputsAndZeroWeightsGiveFiniteScales) {
  at::Tensor x = test::random_matrix(64, 32, 7);
  x.narrow(1, 0, 8).zero_();
  at::Tensor w = test::random_matrix(8, 32, 8);
  w.narrow(1, 4, 8).zero_();
  const ScaleSearchResult found = search_scales({w}, statistics_of(x), {4, 16, true}, {});
  EXPECT_TRUE(found.scales.isfinite().all().item<bool>());
  EXPECT_GT(found.scales.min().item<float>(), 0.0f);
  const ScaleSearchResult none = search_scales({w}, statistics_of(x * 0), {4, 16, true}, {});
  EXPECT_EQ(none.kind, "identity");
}

TEST(ScaleSearch, TiedChannelsShareTheirScale) {
  const at::Tensor x = test::random_matrix(100, 32, 11, true);
  const at::Tensor w = test::random_matrix(8, 32, 12);
  const at::Tensor tie = at::arange(32, at::kLong).remainder(16).contiguous();
  const ScaleSearchResult found = search_scales({w}, statistics_of(x), {4, 16, true}, {}, tie);
  EXPECT_TRUE(found.scales.narrow(0, 0, 16).equal(found.scales.narrow(0, 16, 16)));
}

// Linears that are shown one after the other, as experts are, are searched like those that are all in memory; each counts by its
// rows.
TEST(ScaleSearch, ShownInPiecesItFindsTheSame) {
  const at::Tensor x = test::random_matrix(300, 64, 21, /*outliers=*/true);
  const InputStatistics statistics = statistics_of(x);
  const AffineOptions options{4, 32, true};
  const at::Tensor tie = at::arange(64, at::kLong).remainder(32).contiguous();
  std::vector<at::Tensor> weights;
  for (const int64_t rows : {8, 40, 16}) weights.push_back(test::random_matrix(rows, 64, 30 + static_cast<uint64_t>(rows)));
  for (const at::Tensor& tied : {at::Tensor(), tie}) {
    for (const DuoScaling duo : {DuoScaling::kOff, DuoScaling::kOn, DuoScaling::kBoth}) {
      const ScaleSearchOptions search{7, duo};
      const ScaleSearchResult whole = search_scales({at::cat(weights)}, statistics, options, search, tied);
      ScaleSearch run(statistics, search, tied);
      for (const at::Tensor& weight : weights) run.add_magnitude(weight, options.group_size);
      do {
        for (const at::Tensor& weight : weights) run.add_error(weight, options, /*none_worse=*/false);
      } while (run.refine());
      const ScaleSearchResult found = run.finish();
      EXPECT_EQ(found.kind, whole.kind);
      EXPECT_EQ(found.ratio, whole.ratio);
      EXPECT_TRUE(found.scales.allclose(whole.scales, 1e-5, 0.0));
      EXPECT_NEAR(found.rtn_error, whole.rtn_error, 1e-5 * whole.rtn_error);
      EXPECT_NEAR(found.best_error, whole.best_error, 1e-5 * whole.best_error);
      EXPECT_NE(found.kind, "identity");
    }
  }
}

// By the definition: the mean over all rows of |w| relative to the largest of its group.
TEST(ScaleSearch, MagnitudeIsTheMeanOverAllRows) {
  const std::vector<at::Tensor> weights = {test::random_matrix(3, 8, 41), test::random_matrix(5, 8, 42)};
  const at::Tensor found = relative_weight_magnitude(weights, 4);
  for (int64_t column = 0; column < 8; ++column) {
    double sum = 0;
    for (const at::Tensor& weight : weights) {
      for (int64_t row = 0; row < weight.size(0); ++row) {
        double largest = 0;
        for (int64_t i = column / 4 * 4; i < column / 4 * 4 + 4; ++i)
          largest = std::max(largest, std::abs(weight[row][i].item<double>()));
        sum += std::abs(weight[row][column].item<double>()) / largest;
      }
    }
    EXPECT_NEAR(found[column].item<double>(), sum / 8, 1e-4);
  }
}

TEST(ScaleSearch, ErrorsAreAskedForAfterTheMagnitudes) {
  const InputStatistics statistics = statistics_of(test::random_matrix(10, 32, 51));
  ScaleSearch run(statistics, ScaleSearchOptions{});
  EXPECT_THROW(run.add_error(test::random_matrix(8, 32, 52), {4, 32, true}), Error);
}

// The finer steps only ever add candidates, and do find better ones.
TEST(ScaleSearch, RefinementNeverLosesAndSometimesGains) {
  int gains = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const InputStatistics statistics = statistics_of(test::random_matrix(200, 64, seed, /*outliers=*/true));
    const at::Tensor w = test::random_matrix(32, 64, seed + 50);
    ScaleSearchOptions coarse{6, DuoScaling::kBoth};
    coarse.refine = false;
    const ScaleSearchOptions fine{6, DuoScaling::kBoth};
    const double before = search_scales({w}, statistics, {4, 32, true}, coarse).best_error;
    const double after = search_scales({w}, statistics, {4, 32, true}, fine).best_error;
    EXPECT_LE(after, before);
    gains += after < before;
  }
  EXPECT_GE(gains, 4);
}

// One weight that scaling helps much, one that it harms: the sum alone would take the harm.
TEST(ScaleSearch, NoLinearPaysForAnother) {
  bool differs = false;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const at::Tensor x = test::random_matrix(200, 64, seed, /*outliers=*/true);
    const InputStatistics statistics = statistics_of(x);
    const AffineOptions options{4, 32, true};
    // Large where inputs are large already: those columns decide every range, and scaling them up coarsens the others. Too small to
    // count in the sum.
    const at::Tensor against = (test::random_matrix(16, 64, seed + 80) * x.abs().mean(0) * 0.02).contiguous();
    const std::vector<at::Tensor> weights = {test::random_matrix(64, 64, seed + 70), against};
    const ScaleSearchResult found = search_scales(weights, statistics, options, {});
    for (const at::Tensor& weight : weights) {
      const double rtn = output_error(quantization_error(weight, {}, options), statistics.gram, statistics.rows);
      EXPECT_LE(output_error(quantization_error(weight, found.scales, options), statistics.gram, statistics.rows),
                rtn * (1 + 1e-9));
    }
    ScaleSearch by_sum(statistics, ScaleSearchOptions{});
    for (const at::Tensor& weight : weights) by_sum.add_magnitude(weight, options.group_size);
    do {
      for (const at::Tensor& weight : weights) by_sum.add_error(weight, options, /*none_worse=*/false);
    } while (by_sum.refine());
    differs |= !by_sum.finish().scales.equal(found.scales);
  }
  EXPECT_TRUE(differs) << "the rule decided nothing here";
}

// Candidates are compared on some rows first: what the others say is not lost. 639 rows, of which the last 71 are never among them.
TEST(ScaleSearch, RowsThatWereNotComparedOnDecideInTheEnd) {
  constexpr int64_t kRows = 639, kCompared = 568;
  const AffineOptions options{4, 32, true};
  bool helped = false, refused = false;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const at::Tensor x = test::random_matrix(200, 64, seed, /*outliers=*/true);
    const InputStatistics statistics = statistics_of(x);
    const auto error_of = [&](const at::Tensor& weight, const at::Tensor& scales) {
      return output_error(quantization_error(weight, scales, options), statistics.gram, statistics.rows);
    };
    at::Tensor weight = test::random_matrix(kRows, 64, seed + 50);
    const ScaleSearchResult plain = search_scales({weight}, statistics, options, {});
    EXPECT_NEAR(plain.rtn_error, error_of(weight, {}), 1e-9 * plain.rtn_error);
    EXPECT_NEAR(plain.best_error, error_of(weight, plain.scales), 1e-9 * plain.rtn_error);
    helped |= plain.best_error < 0.9 * plain.rtn_error;
    // Large where inputs are large already, and so large that they decide the sum.
    weight.narrow(0, kCompared, kRows - kCompared).mul_(x.abs().mean(0) * 30);
    const ScaleSearchResult found = search_scales({weight}, statistics, options, {});
    EXPECT_NEAR(found.rtn_error, error_of(weight, {}), 1e-9 * found.rtn_error);
    EXPECT_LE(error_of(weight, found.scales), found.rtn_error * (1 + 1e-9));
    const at::Tensor compared = weight.narrow(0, 0, kCompared).contiguous();
    const ScaleSearchResult of_those = search_scales({compared}, statistics, options, {});
    refused |= error_of(weight, of_those.scales) > found.rtn_error;
    // What identity leaves may be given instead of being measured.
    ScaleSearch given(statistics, {});
    given.add_magnitude(weight, options.group_size);
    do {
      given.add_error(weight, options, /*none_worse=*/true, error_of(weight, {}));
    } while (given.refine());
    EXPECT_TRUE(given.finish().scales.equal(found.scales));
  }
  EXPECT_TRUE(helped);
  EXPECT_TRUE(refused) << "the rows that were compared on would have done";
}

TEST(ScaleSearch, SlicesOfRowsChangeNothing) {
  const at::Tensor x = test::random_matrix(300, 64, 1, /*outliers=*/true);
  const at::Tensor w = test::random_matrix(37, 64, 2);
  ScaleSearchOptions small;
  small.max_chunk_memory = 10 * 64 * 4 * kSliceArrays;
  ASSERT_EQ(rows_in_memory(small.max_chunk_memory, 64), 10);  // 10 + 10 + 10 + 7
  const ScaleSearchResult sliced = search_scales({w}, statistics_of(x), {3, 32, true}, small);
  const ScaleSearchResult whole = search_scales({w}, statistics_of(x), {3, 32, true}, {});
  EXPECT_TRUE(sliced.scales.equal(whole.scales));
  EXPECT_NEAR(sliced.best_error, whole.best_error, 1e-5 * whole.best_error);
  EXPECT_NEAR(sliced.rtn_error, whole.rtn_error, 1e-5 * whole.rtn_error);
  EXPECT_EQ(rows_in_memory(1, 64), 1);
}

}  // namespace
}  // namespace salient::quant
