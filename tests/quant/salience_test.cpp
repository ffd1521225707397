#include "quant/salience.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/error.h"
#include "quant/affine.h"
#include "quant/correlated_gram.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

at::Tensor vector_of(std::vector<double> values) { return at::tensor(values, at::kDouble); }

std::vector<int64_t> indices(const at::Tensor& channels) {
  return {channels.const_data_ptr<int64_t>(), channels.const_data_ptr<int64_t>() + channels.numel()};
}

TEST(SalientChannels, ByActivationOrByActivationTimesWeight) {
  const at::Tensor mean_abs = at::tensor(std::vector<float>{1, 5, 3, 5, 0.5F, 2}, at::kFloat);
  EXPECT_THAT(indices(find_salient_channels(mean_abs, {}, 0.5)), ElementsAre(1, 3, 2));
  EXPECT_THAT(indices(find_salient_channels(mean_abs, {}, 0.005)), ElementsAre(1));
  EXPECT_THAT(indices(find_salient_channels(mean_abs, {}, 0.0)), ElementsAre());
  at::Tensor weight = at::ones({3, 6});
  weight.narrow(1, 5, 1).mul_(-10.0);  // the sign does not matter
  weight.narrow(1, 1, 1).mul_(0.1);
  EXPECT_THAT(indices(find_salient_channels(mean_abs, weight, 0.34)), ElementsAre(5, 3));
  EXPECT_THROW(find_salient_channels(mean_abs, {}, 1.5), Error);
  EXPECT_THROW(find_salient_channels(mean_abs, {}, std::nan("")), Error);
  EXPECT_THAT(indices(largest_channels(vector_of({1, std::nan(""), 2}), 9)), ElementsAre(2, 0, 1));
}

// The sum over tokens and outputs of (x_j D_nj)^2, token by token.
TEST(ChannelErrorShare, IsTheErrorOfEachChannelAlone) {
  const at::Tensor x = test::random_matrix(50, 24, 1, true);
  const at::Tensor error = test::random_matrix(1100, 24, 2);
  const at::Tensor share = channel_error_share(error, at::mm(x.t(), x));
  for (int64_t j = 0; j < 24; ++j) {
    double sum_x = 0;
    for (int64_t t = 0; t < 50; ++t) sum_x += std::pow(x[t][j].item<double>(), 2);
    const at::Tensor column = error.narrow(1, j, 1).to(at::kDouble);
    const double expected = sum_x * (column * column).sum().item<double>();
    EXPECT_NEAR(share[j].item<double>(), expected, 1e-5 * expected);
  }
}

TEST(ChooseSalientChannels, WhereAChannelBuysMoreThanABit) {
  at::Tensor errors = at::ones({200}, at::kDouble);
  EXPECT_EQ(choose_salient_channels(errors, 4, 0.5).numel(), 0);
  errors[70] = 100.0;
  errors[3] = 40.0;
  errors[9] = 9.5;   // just above the price at 4 bits, 9 times the mean of the others
  errors[10] = 8.5;  // just below
  EXPECT_THAT(indices(choose_salient_channels(errors, 4, 0.5)), ElementsAre(70, 3, 9));
  EXPECT_THAT(indices(choose_salient_channels(errors, 3, 0.5)), ElementsAre(70, 3));
  EXPECT_THAT(indices(choose_salient_channels(errors, 8, 0.5)), ElementsAre(70, 3, 9, 10));
  EXPECT_THAT(indices(choose_salient_channels(errors, 4, 0.005)), ElementsAre(70));
  EXPECT_EQ(choose_salient_channels(errors, 4, 0.0).numel(), 0);
  EXPECT_EQ(choose_salient_channels(at::zeros({10}), 4, 1.0).numel(), 0);
  EXPECT_EQ(choose_salient_channels(errors, 4, 1.0).numel(), 3);
  EXPECT_THROW(choose_salient_channels(errors, 4, -0.1), Error);
}

// The rule in terms of its purpose: where channels are kept, the same stored bits as a larger width would have left more error.
TEST(ChooseSalientChannels, BeatsTheSameBitsSpentOnWidth) {
  const at::Tensor x = test::random_matrix(400, 340, 3, true);  // every 17th channel 20 times larger
  const at::Tensor gram = at::mm(x.t(), x);
  const at::Tensor weight = test::random_matrix(30, 340, 4);
  const auto error_at = [&](int bits) { return dequantize(quantize_affine(weight, {bits, 68, true})) - weight; };
  const at::Tensor share = channel_error_share(error_at(4), gram);
  const at::Tensor kept = choose_salient_channels(share, 4, 0.2);
  ASSERT_EQ(kept.numel(), 20);
  const double all = share.sum().item<double>();
  const double left = all - share.index_select(0, kept).sum().item<double>();
  const double extra_bits = 12.0 * 20 / 340;                                         // 0.7 of a bit per weight
  const double wider = channel_error_share(error_at(5), gram).sum().item<double>();  // a whole bit more
  EXPECT_LT(extra_bits, 1.0);
  EXPECT_LT(left, wider);
}

TEST(SalienceSummary, QuantilesAndTopShare) {
  std::vector<double> values;
  for (int i = 200; i >= 0; --i) values.push_back(i);
  EXPECT_THAT(salience_quantiles(vector_of(values)), ElementsAre(0.0, 50.0, 100.0, 150.0, 180.0, 198.0, 200.0));
  EXPECT_THAT(salience_quantiles(vector_of({4.0, 2.0})),
              ElementsAre(2.0, 2.5, 3.0, 3.5, DoubleNear(3.8, 1e-12), DoubleNear(3.98, 1e-12), 4.0));
  EXPECT_THAT(salience_quantiles(vector_of({})), testing::Each(0.0));
  EXPECT_DOUBLE_EQ(salience_top_share(vector_of(values)), (200.0 + 199.0) / 20100.0);
  EXPECT_DOUBLE_EQ(salience_top_share(vector_of({1, 3}), 0.01), 0.75);
  EXPECT_DOUBLE_EQ(salience_top_share(vector_of({1, 3}), 1.0), 1.0);
  EXPECT_DOUBLE_EQ(salience_top_share(at::zeros({7})), 0.0);
  EXPECT_DOUBLE_EQ(salience_top_share(vector_of({1, std::numeric_limits<double>::infinity()})), 1.0);
}

// By the definition with pairs: ranks counted as 1 + smaller ones + half of the other equal ones, then Pearson's correlation.
double slow_rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto rank = [](const std::vector<double>& of, size_t i) {
    double result = 1;
    for (size_t j = 0; j < of.size(); ++j) {
      if (j != i) result += of[j] < of[i] ? 1.0 : (of[j] == of[i] ? 0.5 : 0.0);
    }
    return result;
  };
  double sa = 0;
  double sb = 0;
  double saa = 0;
  double sbb = 0;
  double sab = 0;
  const auto n = static_cast<double>(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = rank(a, i);
    const double y = rank(b, i);
    sa += x;
    sb += y;
    saa += x * x;
    sbb += y * y;
    sab += x * y;
  }
  return (n * sab - sa * sb) / std::sqrt((n * saa - sa * sa) * (n * sbb - sb * sb));
}

TEST(RankCorrelation, AgainstItsDefinition) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const at::Tensor a = (test::random_matrix(1, 60, seed) * 2.0).round().view({60});  // many ties
    const at::Tensor b = ((test::random_matrix(1, 60, seed + 100).view({60}) + 0.3 * a) * 3.0).round();
    std::vector<double> x;
    std::vector<double> y;
    for (int64_t i = 0; i < 60; ++i) {
      x.push_back(a[i].item<double>());
      y.push_back(b[i].item<double>());
    }
    ASSERT_TRUE(rank_correlation(a, b).has_value());
    EXPECT_NEAR(*rank_correlation(a, b), slow_rank_correlation(x, y), 1e-12);
  }
  EXPECT_DOUBLE_EQ(*rank_correlation(vector_of({1, 2, 3, 40}), vector_of({-1, 0, 5, 6})), 1.0);
  EXPECT_DOUBLE_EQ(*rank_correlation(vector_of({1, 2, 3, 40}), vector_of({4, 3, 2, 1})), -1.0);
  EXPECT_FALSE(rank_correlation(at::ones({5}), vector_of({1, 2, 3, 4, 5})).has_value());
  EXPECT_FALSE(rank_correlation(at::ones({1}), at::ones({1})).has_value());
  EXPECT_THROW(rank_correlation(at::ones({5}), at::ones({4})), Error);
}

TEST(RankCorrelation, OfNumbers) {
  using Numbers = std::vector<double>;
  // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233
  EXPECT_NEAR(*rank_correlation(Numbers{1, 2, 3, 4, 5}, Numbers{5, 6, 7, 8, 7}), 0.8207826816681233, 1e-12);
  EXPECT_DOUBLE_EQ(*rank_correlation(Numbers{1, 10, 100}, Numbers{-1, -2, -3}), -1);
  EXPECT_FALSE(rank_correlation(Numbers{1, 1, 1}, Numbers{1, 2, 3}));
}

}  // namespace
}  // namespace salient::quant
