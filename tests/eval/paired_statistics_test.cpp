// Statistics of two models on the same documents, against scipy and statsmodels (tests/data/eval/paired_statistics.json, made by
// scripts/goldens/paired_statistics.py) and against sums over everything that could happen, for small samples.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "common/json.h"
#include "eval/paired_bootstrap.h"
#include "eval/paired_flips.h"
#include "eval/paired_units.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/paired_statistics.json");
  return json;
}

double itself(double mean) { return mean; }
double perplexity(double mean) { return std::exp(-mean); }

std::vector<PairedScore> scores_of(const Json& example) {
  std::vector<PairedScore> out;
  for (size_t i = 0; i < example["value"].size(); ++i) {
    out.push_back({.value = example["value"][i].get<double>(), .base = example["base"][i].get<double>()});
    if (example.contains("cluster")) out.back().cluster = example["cluster"][i].get<int64_t>();
  }
  return out;
}

std::vector<PairedUnit> single_units(const std::vector<std::pair<double, double>>& pairs) {
  std::vector<PairedUnit> units;
  for (const auto& [value, base] : pairs) units.push_back({value, base, 1});
  return units;
}

TEST(PairedFlips, McNemarEqualsStatsmodels) {
  for (const Json& example : golden()["mcnemar"]) {
    const auto lost = example["lost"].get<int64_t>();
    const auto gained = example["gained"].get<int64_t>();
    const double exact = example["exact"].get<double>();
    const double mid = example["mid"].get<double>();
    EXPECT_NEAR(mcnemar_exact_p(lost, gained), exact, 1e-9 * exact) << dump_json(example);
    EXPECT_NEAR(mcnemar_mid_p(lost, gained), mid, 1e-9 * mid) << dump_json(example);
    EXPECT_EQ(mcnemar_exact_p(gained, lost), mcnemar_exact_p(lost, gained));
  }
}

TEST(PairedFlips, McNemarIsTheSumOfBinomials) {
  for (int64_t lost = 0; lost <= 12; ++lost) {
    for (int64_t gained = 0; gained <= 12; ++gained) {
      // Pascal's triangle, in whole numbers.
      std::vector<int64_t> row = {1};
      for (int64_t n = 0; n < lost + gained; ++n) {
        row.push_back(0);
        for (size_t k = row.size() - 1; k > 0; --k) row[k] += row[k - 1];
      }
      int64_t extreme = 0;
      for (size_t k = 0; k < row.size(); ++k) {
        const auto one = static_cast<int64_t>(k);
        if (std::abs(2 * one - lost - gained) >= std::abs(lost - gained)) extreme += row[k];
      }
      EXPECT_NEAR(mcnemar_exact_p(lost, gained), static_cast<double>(extreme) / std::pow(2, lost + gained), 1e-12)
          << lost << " " << gained;
    }
  }
}

TEST(PairedFlips, CountsBothDirections) {
  const Flips flips = count_flips(std::vector<double>{1, 0, 0, 1, 0, 0}, std::vector<double>{1, 1, 1, 0, 0, 1});
  EXPECT_EQ(flips.lost, 3);
  EXPECT_EQ(flips.gained, 1);
  EXPECT_DOUBLE_EQ(flips.changed, 4.0 / 6);
  EXPECT_DOUBLE_EQ(flips.mcnemar_p, 10.0 / 16);
  EXPECT_DOUBLE_EQ(flips.mcnemar_mid_p, 2.0 / 16 + 4.0 / 16);
  test::error_of([] { count_flips(std::vector<double>{0.5}, std::vector<double>{1}); }, ErrorKind::kInvalidArgument);
  test::error_of([] { count_flips(std::vector<double>{1, 1}, std::vector<double>{1}); }, ErrorKind::kInvalidArgument);
}

TEST(Intervals, WilsonAndHolmEqualStatsmodels) {
  for (const Json& example : golden()["wilson"]) {
    const Interval bounds = wilson_interval(example["right"].get<int64_t>(), example["n"].get<int64_t>());
    EXPECT_NEAR(bounds.low, example["bounds"][0].get<double>(), 1e-12) << dump_json(example);
    EXPECT_NEAR(bounds.high, example["bounds"][1].get<double>(), 1e-12) << dump_json(example);
  }
  const auto adjusted = holm_adjusted(golden()["holm"]["p"].get<std::vector<double>>());
  const auto expected = golden()["holm"]["adjusted"].get<std::vector<double>>();
  ASSERT_EQ(adjusted.size(), expected.size());
  for (size_t i = 0; i < adjusted.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-12) << i;
  test::error_of([] { wilson_interval(3, 2); }, ErrorKind::kInvalidArgument);
}

TEST(Intervals, NormalPValue) {
  EXPECT_NEAR(normal_p_value(-kTwoSided95 * 0.3, 0.3), 0.05, 1e-12);
  EXPECT_EQ(normal_p_value(0, 0), 1);
  EXPECT_EQ(normal_p_value(0.1, 0), 0);
}

TEST(PairedUnits, ClusteredErrorEqualsARegressionWithClusteredErrors) {
  const Json& example = golden()["clusters"];
  const PairedUnits paired = independent_units(scores_of(example));
  EXPECT_TRUE(paired.clustered);
  ASSERT_EQ(paired.units.size(), 14U);
  EXPECT_NEAR(difference_error(paired.units, false), example["stderr"].get<double>(), 1e-12);
  EXPECT_NEAR(sign_flip_p_value(paired.units), example["p"].get<double>(), 1e-12);  // 2^14 signs, all of them
}

TEST(PairedUnits, FewOrSingleClustersAreNone) {
  std::vector<PairedScore> scores;
  for (int i = 0; i < 30; ++i) scores.push_back({.value = 1, .base = 0, .cluster = i % 9 + 1});
  EXPECT_FALSE(independent_units(scores).clustered);
  EXPECT_EQ(independent_units(scores).units.size(), 30U);
  for (int i = 0; i < 30; ++i) scores[static_cast<size_t>(i)].cluster = i % 10 + 1;
  EXPECT_EQ(independent_units(scores).units.size(), 10U);
  for (int i = 0; i < 30; ++i) scores[static_cast<size_t>(i)].cluster = i + 1;
  EXPECT_FALSE(independent_units(scores).clustered);
  for (int i = 0; i < 30; ++i) scores[static_cast<size_t>(i)].cluster = i < 20 ? 0 : 1;  // 0 is no cluster
  EXPECT_EQ(independent_units(scores).units.size(), 21U);
}

TEST(PairedUnits, CautiousErrorIsThatOfBonettAndPrice) {
  // 3 lost, 1 gained of 50: p12 = 4 / 52, p21 = 2 / 52.
  std::vector<std::pair<double, double>> pairs(50, {1, 1});
  for (size_t i = 0; i < 3; ++i) pairs[i] = {0, 1};
  pairs[3] = {1, 0};
  const double lost = 4.0 / 52;
  const double gained = 2.0 / 52;
  EXPECT_NEAR(difference_error(single_units(pairs), true), std::sqrt((lost + gained - std::pow(lost - gained, 2)) / 52), 1e-15);
  const std::vector<std::pair<double, double>> same(20, {1, 1});
  EXPECT_EQ(difference_error(single_units(same), false), 0);
  EXPECT_NEAR(difference_error(single_units(same), true), std::sqrt(2.0 / 22 / 22), 1e-15);
}

TEST(SignFlips, AreMcNemarsTestOfRightAndWrong) {
  std::vector<std::pair<double, double>> pairs(40, {1, 1});
  for (size_t i = 0; i < 9; ++i) pairs[i] = {0, 1};
  for (size_t i = 9; i < 11; ++i) pairs[i] = {1, 0};
  EXPECT_NEAR(sign_flip_p_value(single_units(pairs)), mcnemar_exact_p(9, 2), 1e-12);
  for (size_t i = 0; i < 20; ++i) pairs[i] = i < 15 ? std::pair(0.0, 1.0) : std::pair(1.0, 0.0);  // random signs
  EXPECT_NEAR(sign_flip_p_value(single_units(pairs), 200'000), mcnemar_exact_p(15, 5), 0.002);
  EXPECT_EQ(sign_flip_p_value(single_units({{1, 1}, {0, 0}})), 1);
}

TEST(SignFlips, EqualScipy) {
  const PairedUnits paired = independent_units(scores_of(golden()["scores"]));
  EXPECT_NEAR(sign_flip_p_value(paired.units, 200'000), golden()["scores"]["p"].get<double>(), 0.006);
  EXPECT_EQ(sign_flip_p_value(paired.units), sign_flip_p_value(paired.units));
}

// Both ends within 3 % of the width: 200,000 and 100,000 draws agree so far.
void expect_bounds(const Interval& bounds, const Json& expected, const char* what) {
  const double low = expected[0].get<double>();
  const double high = expected[1].get<double>();
  EXPECT_NEAR(bounds.low, low, 0.03 * (high - low)) << what;
  EXPECT_NEAR(bounds.high, high, 0.03 * (high - low)) << what;
}

TEST(PairedBootstrap, EqualsScipy) {
  const BootstrapOptions options{.draws = 100'000};
  for (const char* name : {"scores", "right_or_wrong"}) {
    const Json& example = golden()[name];
    const PairedUnits paired = independent_units(scores_of(example));
    const PairedBootstrap bootstrap = paired_bootstrap(paired.units, itself, options);
    expect_bounds(bootstrap.difference, example["difference"], name);
    ASSERT_TRUE(bootstrap.ratio);
    expect_bounds(*bootstrap.ratio, example["ratio"], name);
    EXPECT_NEAR(bootstrap.difference_error, example["difference"][2].get<double>(), 0.01 * bootstrap.difference_error) << name;
  }
  const PairedUnits paired = independent_units(scores_of(golden()["scores"]));
  expect_bounds(paired_bootstrap(paired.units, perplexity, options).difference, golden()["scores"]["perplexity"], "perplexity");
}

// Distribution of the mean difference over all n^n draws.
std::map<int64_t, double> all_draws(const std::vector<PairedUnit>& units, double scale) {
  std::map<int64_t, double> out = {{0, 1.0}};
  for (size_t draw = 0; draw < units.size(); ++draw) {
    std::map<int64_t, double> next;
    for (const auto& [sum, p] : out) {
      for (const PairedUnit& unit : units) {
        next[sum + std::llround(scale * (unit.value - unit.base))] += p / static_cast<double>(units.size());
      }
    }
    out = std::move(next);
  }
  return out;
}

double enumerated_quantile(const std::map<int64_t, double>& distribution, double q) {
  double below = 0;
  for (const auto& [sum, p] : distribution) {
    below += p;
    if (below >= q) return static_cast<double>(sum);
  }
  return 0;
}

TEST(PairedBootstrap, EqualsTheFullEnumeration) {
  // Right or wrong: only counts are drawn. Tenths: documents are drawn.
  const std::vector<std::pair<std::vector<PairedUnit>, double>> cases = {
      {single_units({{1, 1}, {0, 1}, {0, 1}, {1, 0}, {0, 0}, {1, 1}, {0, 1}, {1, 1}}), 1},
      {single_units({{0.3, 0.4}, {0.7, 0.2}, {0.1, 0.9}, {0.5, 0.5}, {1.0, 0.3}, {0.2, 0.8}, {0.6, 0.5}}), 10}};
  for (const auto& [units, scale] : cases) {
    const auto distribution = all_draws(units, scale);
    const auto n = static_cast<double>(units.size());
    const PairedBootstrap bootstrap = paired_bootstrap(units, itself, {.draws = 100'000});
    EXPECT_NEAR(bootstrap.difference.low, enumerated_quantile(distribution, 0.025) / scale / n, 1e-9) << scale;
    EXPECT_NEAR(bootstrap.difference.high, enumerated_quantile(distribution, 0.975) / scale / n, 1e-9) << scale;
    double mean = 0;
    double square = 0;
    for (const auto& [sum, p] : distribution) {
      mean += p * static_cast<double>(sum) / scale / n;
      square += p * std::pow(static_cast<double>(sum) / scale / n, 2);
    }
    EXPECT_NEAR(bootstrap.difference_error, std::sqrt(square - mean * mean), 0.01 * bootstrap.difference_error);
  }
}

TEST(PairedBootstrap, IsTheSameEachTimeAndFollowsItsSeed) {
  const PairedUnits paired = independent_units(scores_of(golden()["scores"]));
  const PairedBootstrap a = paired_bootstrap(paired.units, itself);
  const PairedBootstrap b = paired_bootstrap(paired.units, itself);
  const PairedBootstrap c = paired_bootstrap(paired.units, itself, {.seed = 99});
  EXPECT_EQ(a.difference.low, b.difference.low);
  EXPECT_EQ(a.ratio->high, b.ratio->high);
  EXPECT_NE(a.difference.low, c.difference.low);
}

TEST(PairedBootstrap, NoRatioToABaseThatMayBeZero) {
  const auto rare = single_units({{1, 1}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}});
  EXPECT_FALSE(paired_bootstrap(rare, itself).ratio);
  test::error_of([] { paired_bootstrap({}, itself); }, ErrorKind::kInvalidArgument);
  EXPECT_NEAR(std::pow(1 - unseen_bound(40), 40), 0.05, 1e-12);
}

}  // namespace
}  // namespace salient::eval
