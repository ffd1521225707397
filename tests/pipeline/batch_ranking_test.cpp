// The order of evaluated models, and which of them nothing beats.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/batch/ranking.h"

namespace salient::pipeline {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

eval::TaskResult scored_task(const std::string& name, double value, std::optional<double> base_value,
                             eval::Unit unit = eval::Unit::kFraction) {
  eval::TaskResult task;
  task.task = name;
  eval::MetricResult metric;
  metric.metric = "acc";
  metric.unit = unit;
  metric.headline = true;
  metric.value = {value, std::nullopt};
  if (base_value) {
    eval::BaseComparison base;
    base.base_value = *base_value;
    base.retention = eval::Estimate{value / *base_value, std::nullopt};
    metric.base = base;
  }
  task.metrics = {metric};
  return task;
}

eval::TaskResult text_task(double perplexity, std::optional<double> base, std::optional<double> kl) {
  eval::TaskResult task;
  task.task = "perplexity";
  eval::MetricResult metric;
  metric.metric = "perplexity";
  metric.value = {perplexity, std::nullopt};
  if (base) {
    metric.base = eval::BaseComparison{};
    metric.base->base_value = *base;
  }
  task.metrics.push_back(metric);
  if (kl) {
    eval::MetricResult divergence;
    divergence.metric = "kl_divergence";
    divergence.value = {*kl, std::nullopt};
    task.metrics.push_back(divergence);
  }
  return task;
}

RankedInput input(const std::string& label, uint64_t bytes, std::vector<eval::TaskResult> tasks, const std::string& base = "demo") {
  RankedInput out;
  out.label = label;
  out.base_label = base;
  out.format = "awq-gemm";
  out.bytes = bytes;
  out.base_bytes = base.empty() ? 0 : 1000;
  out.evaluation.model.tasks = std::move(tasks);
  return out;
}

std::vector<std::string> labels(const std::vector<RankedModel>& models) {
  std::vector<std::string> out;
  for (const RankedModel& model : models) out.push_back(model.label);
  return out;
}

TEST(Ranking, ByWhatIsKeptOnAverageThenDivergenceThenSize) {
  RankedInput base = input("demo", 1000, {scored_task("arc", 0.5, {})}, "");
  base.serves_as_base = true;
  const std::vector<RankedModel> ranked =
      rank_models({base, input("worst", 200, {scored_task("arc", 0.3, 0.5), scored_task("squad", 50, 50, eval::Unit::kPercent)}),
                   input("best", 400, {scored_task("arc", 0.5, 0.5), scored_task("squad", 55, 50, eval::Unit::kPercent)}),
                   input("even_far", 300, {scored_task("arc", 0.45, 0.5), text_task(2.2, 2.0, 0.02)}),
                   input("even_near", 300, {scored_task("arc", 0.45, 0.5), text_task(2.1, 2.0, 0.01)})});
  EXPECT_THAT(labels(ranked), ElementsAre("best", "even_near", "even_far", "worst", "demo"));
  EXPECT_DOUBLE_EQ(*ranked[0].retained, (1.0 + 1.1) / 2);
  EXPECT_DOUBLE_EQ(*ranked[0].score, (0.5 + 0.55) / 2);
  EXPECT_DOUBLE_EQ(*ranked[1].perplexity_change, 2.1 / 2.0 - 1);
  EXPECT_DOUBLE_EQ(*ranked[3].retained, (0.6 + 1.0) / 2);
  EXPECT_DOUBLE_EQ(*ranked[3].size_ratio, 0.2);
  EXPECT_EQ(ranked[0].rank, 1);
  EXPECT_EQ(ranked[3].rank, 4);
  EXPECT_EQ(ranked[4].rank, 0);  // all others are measured by it
  // even_far is as large as even_near and has the greater divergence.
  EXPECT_TRUE(ranked[0].on_front);
  EXPECT_TRUE(ranked[1].on_front);
  EXPECT_FALSE(ranked[2].on_front);
  EXPECT_TRUE(ranked[3].on_front);
  EXPECT_FALSE(ranked[4].on_front);
}

TEST(Ranking, TextAloneRanksByDivergence) {
  const std::vector<RankedModel> ranked =
      rank_models({input("far", 100, {text_task(2.0, 2.0, 0.5)}), input("near", 200, {text_task(2.4, 2.0, 0.1)})});
  EXPECT_THAT(labels(ranked), ElementsAre("near", "far"));
  EXPECT_TRUE(ranked[0].on_front && ranked[1].on_front);
}

TEST(Ranking, OriginalsAreRankedByScoreWhereNothingIsCompared) {
  const std::vector<RankedModel> ranked = rank_models({input("step-100", 100, {scored_task("arc", 0.4, {})}, ""),
                                                       input("step-200", 100, {scored_task("arc", 0.6, {})}, ""),
                                                       input("text_only", 100, {text_task(2.0, {}, {})}, "")});
  EXPECT_THAT(labels(ranked), ElementsAre("step-200", "step-100", "text_only"));
  EXPECT_EQ(ranked[0].rank, 1);
  EXPECT_EQ(ranked[2].rank, 3);
  EXPECT_FALSE(ranked[0].on_front);
}

TEST(Ranking, FrontsOfTwoBasesDoNotMeet) {
  const std::vector<RankedModel> ranked =
      rank_models({input("a", 100, {scored_task("arc", 0.4, 0.5)}, "one"), input("b", 50, {scored_task("arc", 0.5, 0.5)}, "two")});
  EXPECT_TRUE(ranked[0].on_front && ranked[1].on_front);
}

TEST(Ranking, TableAndJsonSayTheSame) {
  const std::vector<RankedModel> ranked =
      rank_models({input("q", 250, {scored_task("arc", 0.45, 0.5), text_task(2.1, 2.0, 0.0123)})});
  const std::string table = ranking_table(ranked);
  for (const char* text : {"q", "demo", "250 B", "25.0 %", "90.0 %", "2.1000", "+5.00 %", "0.0123", "0.4500", "*"})
    EXPECT_THAT(table, HasSubstr(text));
  const Json json = ranking_json(ranked).at(0);
  EXPECT_EQ(json.at("rank"), 1);
  EXPECT_DOUBLE_EQ(json.at("retained").get<double>(), 0.9);
  EXPECT_EQ(json.at("headlines").at(0).at("task"), "arc");
  EXPECT_EQ(json.at("front"), true);
}

}  // namespace
}  // namespace salient::pipeline
