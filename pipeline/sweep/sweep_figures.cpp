#include "pipeline/sweep/sweep_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "common/error.h"

namespace salient::pipeline {
namespace {

constexpr const char* kDivergence = "kl_divergence";
constexpr const char* kRetention = "retention";

using eval::Estimate;

// Of independent estimates; without an error where one has none.
std::optional<Estimate> mean_of(const std::vector<Estimate>& values) {
  if (values.empty()) return std::nullopt;
  Estimate mean{0, 0.0};
  for (const Estimate& value : values) {
    mean.value += value.value / static_cast<double>(values.size());
    if (mean.stderr_of_mean && value.stderr_of_mean) {
      mean.stderr_of_mean = *mean.stderr_of_mean + *value.stderr_of_mean * *value.stderr_of_mean;
    } else {
      mean.stderr_of_mean.reset();
    }
  }
  if (mean.stderr_of_mean) mean.stderr_of_mean = std::sqrt(*mean.stderr_of_mean) / static_cast<double>(values.size());
  return mean;
}

std::optional<Estimate> divergence(const eval::Evaluation& evaluation) {
  std::vector<Estimate> values;
  for (const eval::TaskResult& task : evaluation.model.tasks) {
    if (const eval::MetricResult* metric = task.find(kDivergence)) values.push_back(metric->value);
  }
  return mean_of(values);
}

std::optional<Estimate> lost_share(const eval::Evaluation& evaluation) {
  std::vector<Estimate> values;
  for (const eval::TaskResult& task : evaluation.model.tasks) {
    for (const eval::MetricResult& metric : task.metrics) {
      if (!metric.headline || !metric.base || !metric.base->retention) continue;
      values.push_back({1 - metric.base->retention->value, metric.base->retention->stderr_of_mean});
      break;  // one for each task
    }
  }
  return mean_of(values);
}

std::optional<Estimate> lost_of_metric(const LossKind& kind, const eval::Evaluation& evaluation) {
  for (const eval::TaskResult& task : evaluation.model.tasks) {
    if (task.task != kind.task) continue;
    const eval::MetricResult* metric = task.find(kind.metric);
    if (metric == nullptr) continue;
    if (metric->base) {
      const Estimate& difference = metric->base->difference;
      return Estimate{metric->higher_is_better ? -difference.value : difference.value, difference.stderr_of_mean};
    }
    if (!metric->higher_is_better) return metric->value;
  }
  return std::nullopt;
}

bool finished(const PointResult& point) { return point.error.empty(); }

bool all_have(const LossKind& kind, const std::vector<PointResult>& points) {
  bool any = false;
  for (const PointResult& point : points) {
    if (!finished(point)) continue;
    if (!loss_of(kind, point.evaluation)) return false;
    any = true;
  }
  return any;
}

std::string known_metrics(const std::vector<PointResult>& points) {
  std::set<std::string> names;
  for (const PointResult& point : points) {
    for (const eval::TaskResult& task : point.evaluation.model.tasks) {
      for (const eval::MetricResult& metric : task.metrics) names.insert(task.task + ":" + metric.metric);
    }
  }
  return names.empty() ? "no metric was measured" : fmt::format("there are {}", fmt::join(names, ", "));
}

// Rows are sorted by size, then loss.
void mark_front(std::vector<SweepRow>& rows) {
  double least = std::numeric_limits<double>::infinity();
  for (SweepRow& row : rows) {
    if (!row.loss || !(row.loss->value < least)) continue;
    row.on_front = true;
    least = row.loss->value;
  }
}

std::vector<SweepSpread> spreads_of(const SweepConfig& config, const std::vector<SweepRow>& rows) {
  std::map<std::string, std::vector<const SweepRow*>> same;
  for (const SweepRow& row : rows) {
    const SweepPoint& point = config.points[row.point];
    if (!point.seed || !row.loss) continue;
    Json values = Json::array();
    for (const auto& [key, value] : point.values) values.push_back({key, value});
    same[values.dump()].push_back(&row);
  }
  std::vector<SweepSpread> spreads;
  for (const auto& [values, members] : same) {
    if (members.size() < 2) continue;
    const auto count = static_cast<double>(members.size());
    SweepSpread spread;
    spread.least = spread.most = members.front()->loss->value;
    for (const SweepRow* row : members) {
      spread.points.push_back(row->point);
      spread.mean += row->loss->value / count;
      spread.least = std::min(spread.least, row->loss->value);
      spread.most = std::max(spread.most, row->loss->value);
    }
    for (const SweepRow* row : members) spread.deviation += (row->loss->value - spread.mean) * (row->loss->value - spread.mean);
    spread.deviation = std::sqrt(spread.deviation / (count - 1));
    std::sort(spread.points.begin(), spread.points.end());
    spreads.push_back(std::move(spread));
  }
  std::sort(spreads.begin(), spreads.end(), [](const SweepSpread& a, const SweepSpread& b) { return a.points < b.points; });
  return spreads;
}

}  // namespace

std::string LossKind::text() const {
  switch (measure) {
    case Measure::kDivergence: return "KL divergence (nats)";
    case Measure::kRetention: return "lost share of the base's score";
    case Measure::kMetric: break;
  }
  return fmt::format("{} {} lost", task, metric);
}

std::optional<Estimate> loss_of(const LossKind& kind, const eval::Evaluation& evaluation) {
  switch (kind.measure) {
    case LossKind::Measure::kDivergence: return divergence(evaluation);
    case LossKind::Measure::kRetention: return lost_share(evaluation);
    case LossKind::Measure::kMetric: break;
  }
  return lost_of_metric(kind, evaluation);
}

std::optional<LossKind> choose_loss(const std::string& word, const std::vector<PointResult>& points) {
  const LossKind divergence_kind{LossKind::Measure::kDivergence, "", ""};
  const LossKind retention_kind{LossKind::Measure::kRetention, "", ""};
  if (word == "auto") {
    for (const LossKind& kind : {divergence_kind, retention_kind}) {
      if (all_have(kind, points)) return kind;
    }
    return std::nullopt;
  }
  if (word == kDivergence) return divergence_kind;
  if (word == kRetention) return retention_kind;
  const size_t colon = word.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == word.size())
    fail(ErrorKind::kInvalidArgument, "loss: found '{}', expected auto, {}, {} or TASK:METRIC", word, kDivergence, kRetention);
  const LossKind kind{LossKind::Measure::kMetric, word.substr(0, colon), word.substr(colon + 1)};
  const bool any = std::any_of(points.begin(), points.end(), finished);
  const bool known = std::any_of(points.begin(), points.end(),
                                 [&](const PointResult& point) { return loss_of(kind, point.evaluation).has_value(); });
  if (any && !known)
    fail(ErrorKind::kInvalidArgument, "loss: no point has a loss in '{}' of the task '{}'; {}", kind.metric, kind.task,
         known_metrics(points));
  return kind;
}

SweepFigures sweep_figures(const SweepConfig& config, const SweepReport& report) {
  SweepFigures figures;
  figures.loss = choose_loss(config.loss, report.points);
  for (size_t i = 0; i < report.points.size(); ++i) {
    const PointResult& point = report.points[i];
    if (!finished(point)) continue;
    figures.rows.push_back({i, point.bytes, figures.loss ? loss_of(*figures.loss, point.evaluation) : std::nullopt, false});
  }
  std::stable_sort(figures.rows.begin(), figures.rows.end(), [](const SweepRow& a, const SweepRow& b) {
    const double worst = std::numeric_limits<double>::infinity();
    return std::tuple(a.bytes, a.loss ? a.loss->value : worst) < std::tuple(b.bytes, b.loss ? b.loss->value : worst);
  });
  mark_front(figures.rows);
  figures.spreads = spreads_of(config, figures.rows);
  return figures;
}

const SweepRow* best_under_size(const SweepFigures& figures, int64_t bytes) {
  const SweepRow* best = nullptr;
  for (const SweepRow& row : figures.rows) {
    if (row.on_front && row.bytes <= bytes) best = &row;  // along the front the loss falls
  }
  return best;
}

const SweepRow* best_under_loss(const SweepFigures& figures, double loss) {
  for (const SweepRow& row : figures.rows) {
    if (row.on_front && row.loss->value <= loss) return &row;
  }
  return nullptr;
}

}  // namespace salient::pipeline
