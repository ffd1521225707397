#include "quant/clip_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "quant/fixed_parts.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

double token_error(const at::Tensor& x, const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip) {
  const at::Tensor stored = dequantize(quantize_affine(weight, options, clip));
  const at::Tensor outputs = at::mm(x.to(at::kDouble), (stored - weight).to(at::kDouble).t());
  return (outputs * outputs).sum().item<double>() / static_cast<double>(x.size(0));
}

class ClipSearch : public testing::TestWithParam<AffineOptions> {};

TEST_P(ClipSearch, LessErrorOverTheTokensAsReported) {
  const AffineOptions options = GetParam();
  const at::Tensor x = test::random_matrix(300, 64, 1);
  const at::Tensor weight = test::random_matrix(40, 64, 2);
  const at::Tensor gram = at::mm(x.t(), x);
  const ClipSearchResult found = search_clip(weight, gram, 300, options, {});
  const double before = token_error(x, weight, options, nullptr);
  const double after = token_error(x, weight, options, &found.range);
  EXPECT_NEAR(total(found.error_before), before, 1e-3 * before);
  EXPECT_NEAR(total(found.error_after), after, 1e-3 * after);
  EXPECT_LT(after, before);
  EXPECT_GT(found.clipped_share, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ClipSearch,
                         testing::Values(AffineOptions{3, 32, true}, AffineOptions{4, 32, false}, AffineOptions{2, 64, true}));

// With one group the search is exhaustive over its grid: compare with trying every pair of ends on the tokens.
TEST(ClipSearchOneGroup, FindsTheBestOfTheGrid) {
  const AffineOptions options{3, 16, true};
  const at::Tensor x = test::random_matrix(80, 16, 3);
  const at::Tensor weight = test::random_matrix(1, 16, 4);
  const ClipSearchResult found = search_clip(weight, at::mm(x.t(), x), 80, options, {5, 0.4});
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    for (int j = 0; j < 5; ++j) {
      ClipRange range{at::ones({1, 1}) * (1.0 - 0.1 * i), at::ones({1, 1}) * (1.0 - 0.1 * j)};
      best = std::min(best, token_error(x, weight, options, &range));
    }
  }
  EXPECT_NEAR(total(found.error_after), best, 1e-3 * best);
}

TEST(ClipSearchOneGroup, NeverWorseByRow) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const at::Tensor x = test::random_matrix(40, 64, seed, true);  // strong correlations between groups
    const at::Tensor weight = test::random_matrix(8, 64, seed + 50);
    const ClipSearchResult found = search_clip(weight, at::mm(x.t(), x), 40, {2, 16, true}, {});
    EXPECT_TRUE(found.error_after.le(found.error_before).all().item<bool>());
  }
}

TEST(ClipSearchSlices, SlicesOfRowsChangeNothing) {
  const AffineOptions options{3, 32, true};
  const at::Tensor x = test::random_matrix(300, 64, 1);
  const at::Tensor weight = test::random_matrix(40, 64, 2);
  const at::Tensor gram = at::mm(x.t(), x);
  ClipSearchOptions small;
  small.max_chunk_memory = 7 * 64 * 4 * kSliceArrays;
  const ClipSearchResult sliced = search_clip(weight, gram, 300, options, small);
  const ClipSearchResult whole = search_clip(weight, gram, 300, options, {});
  EXPECT_NEAR(total(sliced.error_after), total(whole.error_after), 1e-5 * total(whole.error_after));
  EXPECT_EQ(sliced.clipped_share, whole.clipped_share);
  EXPECT_TRUE(sliced.range.low.equal(whole.range.low));
  EXPECT_TRUE(sliced.range.high.equal(whole.range.high));
}

}  // namespace
}  // namespace salient::quant
