// What a sweep found: size and loss of each point, which points nothing else beats, what is best under a bound, and how far
// repetitions with other seeds lie apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/statistics.h"
#include "pipeline/sweep/run_sweep.h"
#include "pipeline/sweep/sweep_config.h"

namespace salient::pipeline {

// What points are compared by; less is better.
struct LossKind {
  enum class Measure : uint8_t {
    kDivergence,  // mean KL divergence from the base, nats a token, over all tasks that have it
    kRetention,   // 1 - the mean, over tasks, of the headline metric's share of the base's
    kMetric,      // what a metric lost against the base's, in its unit; the metric itself where there is no base and less is better
  };
  Measure measure = Measure::kDivergence;
  std::string task;    // kMetric
  std::string metric;  // kMetric

  std::string text() const;  // "KL divergence (nats)", "lost share of the base's score", "arc_easy acc lost"
};

// "kl_divergence", "retention", "TASK:METRIC"; "auto": the first of these that every finished point has, nothing where they have
// none. Errors: invalid argument, for another word and for a metric that no point has, naming those there are.
std::optional<LossKind> choose_loss(const std::string& word, const std::vector<PointResult>& points);

// Nothing where it was not measured.
std::optional<eval::Estimate> loss_of(const LossKind& kind, const eval::Evaluation& evaluation);

struct SweepRow {
  size_t point = 0;  // in the config and the report
  int64_t bytes = 0;
  std::optional<eval::Estimate> loss;
  bool on_front = false;  // no other point is smaller without losing more, or loses less without being larger
};

// Points that differ in the seed alone.
struct SweepSpread {
  std::vector<size_t> points;
  double mean = 0;
  double deviation = 0;  // of a single one: divided by n - 1
  double least = 0;
  double most = 0;
};

struct SweepFigures {
  std::optional<LossKind> loss;
  std::vector<SweepRow> rows;        // finished points, by size, then loss
  std::vector<SweepSpread> spreads;  // of two finished points and more, with a loss
};

SweepFigures sweep_figures(const SweepConfig& config, const SweepReport& report);

// The row that loses least among those of at most so many bytes; the smallest among those that lose at most so much. Null where
// there is none.
const SweepRow* best_under_size(const SweepFigures& figures, int64_t bytes);
const SweepRow* best_under_loss(const SweepFigures& figures, double loss);

}  // namespace salient::pipeline
