#include "eval/numeric_answer.h"

#include <gtest/gtest.h>

#include "common/json.h"

namespace salient::eval {
namespace {

// Made by scripts/goldens/eval_metrics.py with lm-evaluation-harness's own filters and metric.
TEST(NumericAnswer, EqualsTheReferenceFilters) {
  const Json rows = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/numeric_answers.json");
  ASSERT_GT(rows.size(), 300u);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows[i];
    const auto text = row["text"].get<std::string>();
    const auto reference = row["reference"].get<std::string>();
    SCOPED_TRACE(dump_json(row));
    EXPECT_EQ(extract_strict(text), row["strict"].get<std::string>());
    EXPECT_EQ(extract_flexible(text), row["flexible"].get<std::string>());
    EXPECT_EQ(same_number(extract_strict(text), reference), row["strict_same"].get<bool>());
    EXPECT_EQ(same_number(extract_flexible(text), reference), row["flexible_same"].get<bool>());
    EXPECT_EQ(same_number(text, text + "."), row["text_same"].get<bool>());
    EXPECT_EQ(same_number(text, rows[(i + 1) % rows.size()]["text"].get<std::string>()), row["other_same"].get<bool>());
  }
}

TEST(NumericAnswer, StrictTakesTheFirstFlexibleTheLast) {
  const std::string text = "3 * 7 = 21.\n#### 21 and #### 22, so 1,5$";
  EXPECT_EQ(extract_strict(text), "21");
  EXPECT_EQ(extract_flexible(text), "1,5$");
  EXPECT_EQ(extract_strict("no number"), kNoAnswer);
  EXPECT_EQ(extract_flexible("no number"), kNoAnswer);
}

TEST(NumericAnswer, ComparesStringsNotValues) {
  EXPECT_TRUE(same_number("$1,234.", "work\n#### 1234"));
  EXPECT_FALSE(same_number("18.00", "#### 18"));
}

}  // namespace
}  // namespace salient::eval
