#include "quant/scale_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace salient::quant
