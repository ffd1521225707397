#include "eval/task_metrics.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/aggregation.h"
#include "eval/task_functions.h"

namespace salient::eval {
namespace {

// Every score that a metric has over the documents; those that it does not concern have none.
std::vector<Score> scores_of(const std::vector<DocumentRecord>& documents, const std::string& metric) {
  std::vector<Score> out;
  for (const DocumentRecord& document : documents) {
    for (const Score& score : document.scores) {
      if (score.metric == metric) out.push_back(score);
    }
  }
  return out;
}

// Wilson's, of a share of right answers.
std::optional<Interval> share_interval(const MetricResult& metric, const std::vector<Score>& scores) {
  const bool is_share = std::all_of(scores.begin(), scores.end(), [](const Score& s) { return s.value == 0 || s.value == 1; });
  if (metric.aggregation != "mean" || scores.empty() || !is_share) return std::nullopt;
  const auto right = std::count_if(scores.begin(), scores.end(), [](const Score& s) { return s.value == 1; });
  return scaled(wilson_interval(right, static_cast<int64_t>(scores.size())), scale_of(metric.unit));
}

double mean_chance(const std::vector<DocumentRecord>& documents) {
  double sum = 0;
  for (const DocumentRecord& document : documents) sum += document.chance;
  return sum / static_cast<double>(documents.size());
}

const MetricResult* find_metric(const std::vector<MetricResult>& metrics, std::string_view name) {
  const auto it = std::find_if(metrics.begin(), metrics.end(), [&](const MetricResult& metric) { return metric.metric == name; });
  return it == metrics.end() ? nullptr : &*it;
}

}  // namespace

const MetricResult* TaskResult::find(std::string_view metric) const { return find_metric(metrics, metric); }
bool TaskResult::is_broken() const {
  return std::any_of(flags.begin(), flags.end(), [](const HealthFlag& flag) { return flag.kind == FlagKind::kNanLogits; });
}
const MetricResult* RuntimeCost::find(std::string_view metric) const { return find_metric(metrics, metric); }

std::string metric_key(const std::string& metric, const std::string& filter) {
  return filter == "none" ? metric : metric + "," + filter;
}

void add_metrics(const TaskDefinition& task, int64_t bootstrap_draws, TaskResult& result) {
  const double chance = result.documents.empty() ? 0 : mean_chance(result.documents);
  result.calibration = calibration_of(result.documents);
  for (const FilterPipeline& filter : task.filters) {
    for (const MetricDefinition& definition : task.metrics) {
      MetricResult metric{.metric = metric_key(definition.name, filter.name),
                          .unit = definition.unit,
                          .higher_is_better = definition.higher_is_better,
                          .headline = definition.headline && &filter == &task.filters.front(),
                          .detail = definition.detail,
                          .aggregation = definition.aggregation,
                          .value = {},
                          .n = 0,
                          .chance = std::nullopt,
                          .base = std::nullopt};
      if (definition.aggregation.starts_with(kFunctionTag)) {
        metric.aggregation.clear();
        const AggregateDocuments function = find_aggregation_function(definition.aggregation.substr(kFunctionTag.size()));
        metric.value = scaled({function(definition.name, result.documents), std::nullopt}, scale_of(definition.unit));
        metric.n = static_cast<int64_t>(result.documents.size());
      } else {
        const std::vector<Score> scores = scores_of(result.documents, metric.metric);
        if (scores.empty() && definition.aggregation == "bypass") continue;  // of log-likelihoods, as in the reference
        metric.n = static_cast<int64_t>(scores.size());
        metric.value = scaled(aggregate(definition.aggregation, scores, bootstrap_draws), scale_of(definition.unit));
        if (chance > 0 && metric.aggregation == "mean") metric.chance = chance * scale_of(definition.unit);
        metric.value_95 = share_interval(metric, scores);
      }
      result.metrics.push_back(std::move(metric));
    }
  }
}

TaskResult group_result(const GroupDefinition& group, const std::vector<TaskResult>& tasks) {
  TaskResult result;
  result.task = group.name;
  result.settings = {{"group", true}, {"tasks", group.tasks}};
  std::vector<const TaskResult*> members;
  for (const std::string& name : group.tasks) {
    const auto found = std::find_if(tasks.rbegin(), tasks.rend(), [&](const TaskResult& t) { return t.task == name; });
    if (found == tasks.rend()) fail(ErrorKind::kInternal, "group {}: no result of {}", group.name, name);
    members.push_back(&*found);
    result.seconds += found->seconds;
    result.truncated += found->truncated;
    result.hit_limit += found->hit_limit;
    if (found->is_broken()) {
      result.flags = {
          {FlagKind::kNanLogits, 1, std::nullopt, fmt::format("{} could not be scored, so the group has no figures", name)}};
    }
  }
  if (result.is_broken()) return result;
  const auto is_wanted = [](const GroupMetric& wanted, const std::string& key) {
    if (wanted.filters.empty()) return key == wanted.metric || key.starts_with(wanted.metric + ",");
    return std::any_of(wanted.filters.begin(), wanted.filters.end(),
                       [&](const std::string& f) { return metric_key(wanted.metric, f) == key; });
  };
  for (const GroupMetric& wanted : group.metrics) {
    for (const MetricResult& like : members.front()->metrics) {
      if (!is_wanted(wanted, like.metric)) continue;
      MetricResult metric = like;
      metric.base.reset();
      if (!wanted.weight_by_size || like.aggregation != "mean") metric.aggregation.clear();
      metric.value_95.reset();
      metric.headline = result.metrics.empty() && like.higher_is_better;
      metric.value = {};
      metric.n = 0;
      double weights = 0;
      double squares = 0;
      double degrees = 0;
      double chance = 0;
      double documents = 0;
      bool has_error = true;
      for (const TaskResult* member : members) {
        const MetricResult* part = member->find(like.metric);
        if (part == nullptr) continue;
        const auto n = static_cast<double>(part->n);
        const double weight = wanted.weight_by_size ? n : 1.0;
        const double error = part->value.stderr_of_mean.value_or(0);
        metric.value.value += weight * part->value.value;
        chance += weight * part->chance.value_or(0);
        weights += weight;
        has_error = has_error && part->value.stderr_of_mean.has_value();
        squares += wanted.weight_by_size ? (n - 1) * error * error * n : error * error;
        degrees += n - 1;
        documents += n;
        metric.n += part->n;
      }
      metric.value.value /= weights;
      if (metric.chance) metric.chance = chance / weights;
      if (has_error)
        metric.value.stderr_of_mean =
            wanted.weight_by_size ? std::sqrt(squares / degrees / documents) : std::sqrt(squares) / weights;
      result.metrics.push_back(std::move(metric));
    }
  }
  return result;
}

}  // namespace salient::eval
