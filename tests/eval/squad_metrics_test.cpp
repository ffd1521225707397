#include "eval/squad_metrics.h"

#include <gtest/gtest.h>

#include <map>

#include "common/json.h"

namespace salient::eval {
namespace {

// Made by scripts/goldens/eval_metrics.py with HF evaluate's squad_v2.
const Json& golden() {
  static const Json golden = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/squad.json");
  return golden;
}

TEST(SquadMetrics, NormalizesAsTheOfficialScript) {
  for (const Json& row : golden()["normalized"]) {
    EXPECT_EQ(normalize_answer(row["text"].get<std::string>()), row["normalized"].get<std::string>()) << dump_json(row);
  }
}

TEST(SquadMetrics, ScoresPairsAsTheOfficialScript) {
  const Json pairs = golden()["pairs"];
  ASSERT_GT(pairs.size(), 200u);
  for (const Json& row : pairs) {
    const auto prediction = row["prediction"].get<std::string>();
    const auto gold = row["gold"].get<std::string>();
    EXPECT_EQ(exact_score(prediction, gold), row["exact"].get<double>()) << dump_json(row);
    EXPECT_DOUBLE_EQ(f1_score(prediction, gold), row["f1"].get<double>()) << dump_json(row);
  }
}

TEST(SquadMetrics, WholeSetsEqualTheOfficialScores) {
  for (const Json& set : golden()["sets"]) {
    std::map<std::string, std::pair<double, int>> sums;  // metric -> sum, count
    std::vector<ThresholdItem> exact_items;
    std::vector<ThresholdItem> f1_items;
    for (const Json& item : set["items"]) {
      const auto golds = item["answers"].get<std::vector<std::string>>();
      const auto prediction = item["prediction"].get<std::string>();
      const AnswerScore score = score_answer(prediction, golds);
      const std::string group = golds.empty() ? "NoAns_" : "HasAns_";
      for (const std::string& prefix : {std::string(), group}) {
        sums[prefix + "exact"].first += score.exact;
        sums[prefix + "f1"].first += score.f1;
        ++sums[prefix + "exact"].second;
        ++sums[prefix + "f1"].second;
      }
      const auto probability = static_cast<float>(item["no_answer_probability"].get<double>());
      exact_items.push_back({score.exact, !golds.empty(), prediction.empty(), probability});
      f1_items.push_back({score.f1, !golds.empty(), prediction.empty(), probability});
    }
    for (const auto& [name, value] : set["scores"].items()) {
      SCOPED_TRACE(name);
      const double expected = value.get<double>();
      if (name == "best_exact") {
        EXPECT_NEAR(100 * best_threshold_score(exact_items), expected, 1e-9);
      } else if (name == "best_f1") {
        EXPECT_NEAR(100 * best_threshold_score(f1_items), expected, 1e-9);
      } else {
        ASSERT_TRUE(sums.contains(name));
        EXPECT_NEAR(100 * sums[name].first / sums[name].second, expected, 1e-9);
      }
    }
  }
}

}  // namespace
}  // namespace salient::eval
