#include "calibration/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "common/error.h"

namespace salient::calibration {
namespace {

using testing::HasSubstr;

// Rows of `length` ids; each row's ids are its number.
SourceRows source(const std::string& name, int rows, const std::vector<int>& lengths, std::optional<double> weight = std::nullopt,
                  int64_t samples = 0) {
  SourceRows result;
  result.source.file = name + ".jsonl";
  result.source.weight = weight;
  result.source.samples = samples;
  result.rows.domains = {name};
  for (int i = 0; i < rows; ++i) {
    CalibrationRow row;
    row.ids.assign(static_cast<size_t>(lengths[static_cast<size_t>(i) % lengths.size()]), i);
    result.rows.rows.push_back(row);
  }
  return result;
}

std::vector<int> order(const TokenRows& rows, const std::string& domain) {
  std::vector<int> result;
  for (size_t i = 0; i < rows.rows.size(); ++i)
    if (rows.domain_names[static_cast<size_t>(rows.domains[i])] == domain) result.push_back(rows.rows[i][0]);
  return result;
}

TEST(Mixture, EveryBeginningIsNearTheWeights) {
  const int longest = 90;
  const Mixture mixture =
      mix_rows({source("a", 500, {10, 90, 40}, 2), source("b", 500, {70, 5}, 1), source("c", 500, {33}, 0.5)}, nullptr, {}, 7);
  std::map<std::string, double> tokens;
  double total = 0;
  const std::map<std::string, double> weights = {{"a", 2}, {"b", 1}, {"c", 0.5}};
  ASSERT_GT(mixture.rows.rows.size(), 300u);
  for (size_t i = 0; i < mixture.rows.rows.size(); ++i) {
    const auto length = static_cast<double>(mixture.rows.rows[i].size());
    tokens[mixture.rows.domain_names[static_cast<size_t>(mixture.rows.domains[i])]] += length;
    total += length;
    for (const auto& [name, weight] : weights) {
      // Within one row of each source of its share.
      EXPECT_NEAR(tokens[name], total * weight / 3.5, 2 * longest) << name << " after " << i;
    }
  }
}

TEST(Mixture, ItEndsWhereTheProportionsWouldBreak) {
  const Mixture mixture = mix_rows({source("a", 10, {20}, 1), source("b", 100, {20}, 1)}, nullptr, {}, 7);
  EXPECT_EQ(mixture.rows.kept, 20);
  ASSERT_EQ(mixture.notes.size(), 1u);
  EXPECT_THAT(mixture.notes[0], HasSubstr("a.jsonl is used up after 10 rows; 90 rows"));
}

TEST(Mixture, WithoutWeightsAllRowsAreUsedEvenly) {
  const Mixture mixture = mix_rows({source("a", 30, {20}), source("b", 90, {5})}, nullptr, {}, 7);
  EXPECT_EQ(mixture.rows.kept, 120);
  EXPECT_TRUE(mixture.notes.empty());
  int64_t of_a = 0;
  for (size_t i = 0; i < mixture.rows.rows.size(); ++i) {
    of_a += mixture.rows.domain_names[static_cast<size_t>(mixture.rows.domains[i])] == "a" ? 1 : 0;
    EXPECT_NEAR(static_cast<double>(of_a), static_cast<double>(i + 1) / 4, 1.0);
  }
  EXPECT_EQ(mixture.rows.domain_rows, (std::vector<int64_t>{30, 90}));
}

TEST(Mixture, TheSeedDrawsAndTheOtherSourcesDoNotMatter) {
  const auto mix = [](uint64_t seed, int other) {
    return order(mix_rows({source("a", 50, {20}, 1), source("b", other, {20}, 1)}, nullptr, {}, seed).rows, "a");
  };
  EXPECT_EQ(mix(7, 60), mix(7, 60));
  EXPECT_EQ(mix(7, 60), mix(7, 200));
  EXPECT_NE(mix(7, 60), mix(8, 60));
  auto sorted = mix(7, 60);
  std::sort(sorted.begin(), sorted.end());
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);  // without replacement
}

TEST(Mixture, OneFileAloneKeepsItsOrderUnlessSamplesAreDrawn) {
  const auto whole = order(mix_rows({source("a", 20, {20})}, nullptr, {}, 7).rows, "a");
  EXPECT_TRUE(std::is_sorted(whole.begin(), whole.end()));
  EXPECT_EQ(whole.size(), 20u);
  const auto drawn = order(mix_rows({source("a", 200, {20}, std::nullopt, 10)}, nullptr, {}, 7).rows, "a");
  EXPECT_EQ(drawn.size(), 10u);
  EXPECT_GT(*std::max_element(drawn.begin(), drawn.end()), 20);
  TokenRowOptions options;
  options.max_rows = 5;
  EXPECT_EQ(mix_rows({source("a", 20, {20})}, nullptr, options, 7).rows.kept, 5);
}

TEST(Mixture, ATextNeedsATokenizer) {
  SourceRows text = source("a", 1, {20});
  text.rows.rows[0].ids.clear();
  text.rows.rows[0].text = "Hello";
  text.rows.rows[0].where = "a.jsonl:1";
  try {
    mix_rows({text}, nullptr, {}, 7);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.message(), HasSubstr("a.jsonl:1: the model folder has no tokenizer.json"));
  }
}

}  // namespace
}  // namespace salient::calibration
