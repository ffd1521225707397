#include "pipeline/reached.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salient::pipeline {
namespace {

LinearReport report(const std::string& name, int64_t dead_channels, double median, int64_t routed_tokens = -1) {
  LinearReport result;
  result.name = name;
  result.in_features = 64;
  result.dead_channels = dead_channels;
  result.salience_quantiles = {0, median};
  result.routed_tokens = routed_tokens;
  return result;
}

TEST(Reached, InactiveChannelsOfEachInputAndExpertsOfEachBlock) {
  calibration::CoverageReport coverage;
  coverage.channels = {{"old", 1, 1}};
  const std::vector<LinearReport> reports = {
      report("model.layers.0.self_attn.q_proj", 3, 0.5),         report("model.layers.0.self_attn.k_proj", 3, 0.5),
      report("model.layers.0.self_attn.o_proj", 3, 0.7),         report("model.layers.0.mlp.up_proj", 0, 0.1),
      report("model.layers.1.self_attn.q_proj", 3, 0.5),         report("model.layers.1.mlp.experts.0.up_proj", 0, 1, 5),
      report("model.layers.1.mlp.experts.0.down_proj", 0, 1, 5), report("model.layers.1.mlp.experts.1.up_proj", 0, 1, 0),
      report("model.layers.1.mlp.experts.1.down_proj", 0, 1, 0), report("model.layers.1.mlp.experts.11.up_proj", 0, 1, 0),
      report("model.layers.2.mlp.experts.0.up_proj", 0, 1, 9)};
  add_reached(coverage, reports);
  ASSERT_EQ(coverage.channels.size(), 3u);
  EXPECT_EQ(coverage.channels[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(coverage.channels[0].channels, 64);
  EXPECT_EQ(coverage.channels[0].inactive, 3);
  EXPECT_EQ(coverage.channels[1].name, "model.layers.0.self_attn.o_proj");
  EXPECT_EQ(coverage.channels[2].name, "model.layers.1.self_attn.q_proj");
  ASSERT_EQ(coverage.experts.size(), 1u);
  EXPECT_EQ(coverage.experts[0].name, "model.layers.1.mlp");
  EXPECT_EQ(coverage.experts[0].experts, 3);
  EXPECT_THAT(coverage.experts[0].never_reached, testing::ElementsAre(1, 11));
}

TEST(Reached, OnlyRecordsWithACoverageReportAreCompleted) {
  const std::vector<LinearReport> reports = {report("model.layers.0.self_attn.q_proj", 2, 0.5)};
  EXPECT_EQ(with_reached({{"file", "a.txt"}}, reports), (Json{{"file", "a.txt"}}));
  EXPECT_EQ(with_reached(Json(), reports), Json());
  const Json record = with_reached({{"file", "a.txt"}, {"coverage", calibration::to_json(calibration::CoverageReport())}}, reports);
  EXPECT_EQ(record["coverage"]["channels"],
            (Json::array({Json{{"name", "model.layers.0.self_attn.q_proj"}, {"channels", 64}, {"inactive", 2}}})));
}

}  // namespace
}  // namespace salient::pipeline
