#include "calibration/coverage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::calibration {
namespace {

using testing::HasSubstr;
using testing::Not;

TokenBlocks blocks(LossMask loss_mask, int64_t max_seq_len = 16) {
  CalibrationRows rows;
  rows.domains = {"math", "prose"};
  CalibrationRow row;
  row.ids = {1, 2, 3, 4, 5, 6, 7, 8};
  row.loss_mask = {0, 0, 0, 0, 0, 0, 1, 1};
  rows.rows.push_back(row);
  rows.rows.push_back(row);
  row.domain = 1;
  row.ids.assign(24, 9);
  row.loss_mask.assign(24, 1);
  rows.rows.push_back(row);
  TokenBlockOptions options;
  options.rows.max_seq_len = max_seq_len;
  options.rows.loss_mask = loss_mask;
  options.min_tokens = 1;
  TokenRowCollector collector(nullptr, options.rows);
  for (const CalibrationRow& one : rows.rows) collector.add(one, rows.domains[static_cast<size_t>(one.domain)]);
  return pack_blocks(collector.take(), options);
}

TEST(Coverage, CountsTokensIdsAndDomains) {
  const CoverageReport all = coverage_of(blocks(LossMask::kAll), 100);
  EXPECT_EQ(all.rows, 3);
  EXPECT_EQ(all.tokens, 40);
  EXPECT_EQ(all.counted_tokens, 40);
  EXPECT_EQ(all.masked_tokens, 0);
  EXPECT_EQ(all.distinct_tokens, 9);
  EXPECT_EQ(all.vocab_size, 100);
  EXPECT_EQ(all.longest_row, 24);
  EXPECT_EQ(all.split, 1);
  EXPECT_EQ(all.duplicates, 1);
  ASSERT_EQ(all.domains.size(), 2u);
  EXPECT_EQ(all.domains[0].name, "math");
  EXPECT_EQ(all.domains[0].rows, 2);
  EXPECT_EQ(all.domains[0].tokens, 16);
  EXPECT_EQ(all.domains[1].rows, 1);
  EXPECT_EQ(all.domains[1].tokens, 24);

  const CoverageReport answers = coverage_of(blocks(LossMask::kResponse), 100);
  EXPECT_EQ(answers.tokens, 40);
  EXPECT_EQ(answers.counted_tokens, 28);
  EXPECT_EQ(answers.masked_tokens, 12);
  EXPECT_EQ(answers.distinct_tokens, 3);  // 7, 8 and 9
  EXPECT_EQ(answers.domains[0].counted_tokens, 4);
}

TEST(Coverage, JsonBothWaysAndText) {
  CoverageReport report = coverage_of(blocks(LossMask::kResponse), 100);
  report.channels = {{"model.layers.0.mlp.down_proj", 64, 3}};
  report.experts = {{"model.layers.1.mlp", 8, {2, 5}}};
  const Json json = to_json(report);
  EXPECT_EQ(to_json(coverage_from_json(json, "report")), json);
  const std::string text = coverage_text(report);
  EXPECT_THAT(text, HasSubstr("3 of 100 token ids (3.0 %)"));
  EXPECT_THAT(text, HasSubstr("statistics over 28 answer tokens (70.0 %), 12 others masked"));
  EXPECT_THAT(text, HasSubstr("1 long rows were split"));
  EXPECT_THAT(text, HasSubstr("math"));
  EXPECT_THAT(text, HasSubstr("model.layers.0.mlp.down_proj"));
  EXPECT_THAT(text, HasSubstr("2 5"));
  report.channels.clear();
  report.experts.clear();
  EXPECT_THAT(coverage_text(report), Not(HasSubstr("experts")));
  Json broken = json;
  broken.erase("tokens");
  EXPECT_THROW(coverage_from_json(broken, "report"), Error);
  broken = json;
  broken["experts"] = 3;
  EXPECT_THROW(coverage_from_json(broken, "report"), Error);
}

TEST(Coverage, IdsOutsideOfTheVocabularyAreAnError) { EXPECT_THROW(coverage_of(blocks(LossMask::kAll), 9), Error); }

}  // namespace
}  // namespace salient::calibration
