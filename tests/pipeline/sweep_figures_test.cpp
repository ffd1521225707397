#include "pipeline/sweep/sweep_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "common/error.h"
#include "pipeline/sweep/sweep_output.h"

namespace salient::pipeline {
namespace {

using testing::HasSubstr;

eval::MetricResult metric_of(const std::string& name, double value, double base, bool headline) {
  eval::MetricResult metric;
  metric.metric = name;
  metric.headline = headline;
  metric.value = {value, 0.01};
  metric.base = eval::BaseComparison{};
  metric.base->base_value = base;
  metric.base->difference = {value - base, 0.02};
  metric.base->retention = eval::Estimate{value / base, 0.03};
  return metric;
}

eval::TaskResult task_of(const std::string& name, std::vector<eval::MetricResult> metrics) {
  eval::TaskResult task;
  task.task = name;
  task.metrics = std::move(metrics);
  return task;
}

struct Sweep {
  void add(int64_t bytes, std::optional<double> divergence, Json group = nullptr, std::optional<uint64_t> seed = {}) {
    SweepPoint point;
    point.name = "p" + std::to_string(config.points.size());
    if (!group.is_null()) point.values = {{"quantization.group_size", group}};
    point.seed = seed;
    config.points.push_back(point);
    PointResult result;
    result.bytes = bytes;
    if (divergence) {
      eval::MetricResult kl;
      kl.metric = "kl_divergence";
      kl.value = {*divergence, 0.001};
      result.evaluation.model.tasks.push_back(task_of("perplexity", {kl}));
    }
    report.points.push_back(result);
  }

  SweepConfig config;
  SweepReport report;
};

// By the definition, on random points with ties: nothing is as small and loses less, or is smaller and loses as much.
TEST(SweepFigures, TheFrontIsWhatNothingBeats) {
  std::mt19937 engine(3);
  for (int round = 0; round < 200; ++round) {
    Sweep sweep;
    const auto count = 1 + engine() % 12;
    for (size_t i = 0; i < count; ++i)
      sweep.add(static_cast<int64_t>(1 + engine() % 5),
                engine() % 6 == 0 ? std::nullopt : std::optional<double>(0.1 * static_cast<double>(engine() % 5)));
    sweep.config.loss = "kl_divergence";
    const SweepFigures figures = sweep_figures(sweep.config, sweep.report);
    ASSERT_EQ(figures.rows.size(), count);
    std::set<std::pair<int64_t, double>> front;
    for (const SweepRow& row : figures.rows) {
      if (row.on_front) {
        EXPECT_TRUE(front.insert({row.bytes, row.loss->value}).second) << "of equal points one";
      }
    }
    for (const SweepRow& row : figures.rows) {
      if (!row.loss) {
        EXPECT_FALSE(row.on_front);
        continue;
      }
      const bool beaten = std::any_of(figures.rows.begin(), figures.rows.end(), [&](const SweepRow& other) {
        return other.loss && other.bytes <= row.bytes && other.loss->value <= row.loss->value &&
               (other.bytes < row.bytes || other.loss->value < row.loss->value);
      });
      EXPECT_EQ(front.contains({row.bytes, row.loss->value}), !beaten);
    }
    // The best under a bound, by trying all.
    for (int64_t bytes = 0; bytes < 7; ++bytes) {
      double least = INFINITY;
      for (const SweepRow& row : figures.rows) {
        if (row.loss && row.bytes <= bytes) least = std::min(least, row.loss->value);
      }
      const SweepRow* best = best_under_size(figures, bytes);
      ASSERT_EQ(best != nullptr, std::isfinite(least));
      if (best != nullptr) {
        EXPECT_EQ(best->loss->value, least);
      }
    }
    for (double loss = -0.05; loss < 0.5; loss += 0.1) {
      int64_t smallest = 100;
      for (const SweepRow& row : figures.rows) {
        if (row.loss && row.loss->value <= loss) smallest = std::min(smallest, row.bytes);
      }
      const SweepRow* best = best_under_loss(figures, loss);
      ASSERT_EQ(best != nullptr, smallest < 100);
      if (best != nullptr) {
        EXPECT_EQ(best->bytes, smallest);
      }
    }
  }
}

TEST(SweepFigures, LossIsWhatWasAskedFor) {
  eval::Evaluation evaluation;
  eval::MetricResult kl;
  kl.metric = "kl_divergence";
  kl.value = {0.02, 0.003};
  eval::MetricResult perplexity = metric_of("perplexity", 6.0, 5.0, true);
  perplexity.higher_is_better = false;
  perplexity.base->retention.reset();
  evaluation.model.tasks = {task_of("perplexity", {perplexity, kl}),
                            task_of("arc", {metric_of("acc", 0.6, 0.8, true), metric_of("acc_norm", 0.5, 0.5, false)}),
                            task_of("gsm8k", {metric_of("exact_match", 0.9, 1.0, true)})};
  const auto loss = [&](const std::string& word) {
    PointResult point;
    point.evaluation = evaluation;
    return *loss_of(*choose_loss(word, {point}), evaluation);
  };
  EXPECT_NEAR(loss("kl_divergence").value, 0.02, 1e-15);
  EXPECT_NEAR(loss("auto").value, 0.02, 1e-15);
  EXPECT_NEAR(*loss("auto").stderr_of_mean, 0.003, 1e-15);
  EXPECT_NEAR(loss("retention").value, (0.25 + 0.1) / 2, 1e-12);
  EXPECT_NEAR(*loss("retention").stderr_of_mean, std::sqrt(2 * 0.03 * 0.03) / 2, 1e-12);
  EXPECT_NEAR(loss("arc:acc").value, 0.2, 1e-12);
  EXPECT_NEAR(loss("perplexity:perplexity").value, 1.0, 1e-12) << "more of it is worse";
  try {
    loss("arc:accuracy");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), testing::AllOf(HasSubstr("accuracy"), HasSubstr("arc:acc_norm")));
  }
  EXPECT_THROW(loss("divergence"), Error);
  // Without a divergence at every point, the score's share; without that nothing.
  PointResult other;
  other.evaluation.model.tasks = {task_of("arc", {metric_of("acc", 0.6, 0.8, true)})};
  PointResult full;
  full.evaluation = evaluation;
  EXPECT_EQ(choose_loss("auto", {full, other})->measure, LossKind::Measure::kRetention);
  EXPECT_FALSE(choose_loss("auto", {full, PointResult{}}).has_value());
  PointResult failed;
  failed.error = "broken";
  EXPECT_EQ(choose_loss("auto", {full, failed})->measure, LossKind::Measure::kDivergence);
}

TEST(SweepFigures, SpreadIsOverSeedsOfOnePoint) {
  Sweep sweep;
  sweep.add(10, 0.1, 32, 1);
  sweep.add(10, 0.4, 32, 2);
  sweep.add(10, 0.1, 32, 3);
  sweep.add(20, 0.5, 64, 1);
  sweep.add(20, std::nullopt, 64, 2);
  sweep.config.loss = "kl_divergence";
  const SweepFigures figures = sweep_figures(sweep.config, sweep.report);
  ASSERT_EQ(figures.spreads.size(), 1u);
  EXPECT_THAT(figures.spreads[0].points, testing::ElementsAre(0, 1, 2));
  EXPECT_NEAR(figures.spreads[0].mean, 0.2, 1e-12);
  EXPECT_NEAR(figures.spreads[0].deviation, std::sqrt(0.03), 1e-12);
  EXPECT_EQ(figures.spreads[0].least, 0.1);
  EXPECT_EQ(figures.spreads[0].most, 0.4);
}

TEST(SweepOutput, FailedPointsAreSaidAndTheOthersShown) {
  Sweep sweep;
  sweep.config.keys = {"quantization.group_size"};
  sweep.config.name = "mine";
  sweep.add(3'000'000, 0.02, 32);
  sweep.add(2'000'000, 0.05, 64);
  sweep.add(2'500'000, 0.06, 96);
  sweep.add(0, std::nullopt, 7);
  sweep.report.points.back().error = "group_size 7 does not divide 256, really";
  const SweepFigures figures = sweep_figures(sweep.config, sweep.report);
  const std::string table = sweep_table(sweep.config, sweep.report, figures);
  EXPECT_THAT(table, HasSubstr("failed: p3: group_size 7 does not divide 256"));
  EXPECT_LT(table.find("64"), table.find("32 ")) << "the smallest first";
  const Json json = sweep_json(sweep.config, sweep.report, figures);
  EXPECT_EQ(json["points"].size(), 4u);
  EXPECT_EQ(json["points"][0]["front"], true);
  EXPECT_EQ(json["points"][2]["front"], false);
  EXPECT_EQ(json["points"][3]["error"], sweep.report.points[3].error);
  EXPECT_EQ(sweep_csv(sweep.config, sweep.report, figures),
            "point,quantization.group_size,seed,bytes,loss,loss_stderr,front,perplexity:kl_divergence,perplexity:kl_divergence_"
            "stderr,perplexity:kl_divergence_base\r\n"
            "p1,64,,2000000,0.05,0.001,1,0.05,0.001,\r\n"
            "p2,96,,2500000,0.06,0.001,0,0.06,0.001,\r\n"
            "p0,32,,3000000,0.02,0.001,1,0.02,0.001,\r\n");
  const std::string plots = sweep_plots(sweep.config, figures);
  EXPECT_THAT(plots, HasSubstr("Quality against size"));
  EXPECT_THAT(plots, HasSubstr("Quality against group_size"));
  EXPECT_THAT(plots, HasSubstr("p1: 0.05"));
}

}  // namespace
}  // namespace salient::pipeline
