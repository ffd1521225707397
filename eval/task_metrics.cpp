#include "eval/task_metrics.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/aggregation.h"
#include "eval/task_functions.h"

namespace salient::eval {
namespace {

double scale_of(Unit unit) { return unit == Unit::kPercent ? 100.0 : 1.0; }

Estimate scaled(Estimate estimate, double factor) {
  estimate.value *= factor;
  if (estimate.stderr_of_mean) *estimate.stderr_of_mean *= factor;
  return estimate;
}

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

std::vector<double> values_of(const std::vector<DocumentRecord>& documents, const std::string& metric) {
  std::vector<double> values;
  for (const Score& score : scores_of(documents, metric)) values.push_back(score.value);
  return values;
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
const MetricResult* RuntimeCost::find(std::string_view metric) const { return find_metric(metrics, metric); }

std::string metric_key(const std::string& metric, const std::string& filter) {
  return filter == "none" ? metric : metric + "," + filter;
}

void add_metrics(const TaskDefinition& task, int64_t bootstrap_draws, TaskResult& result) {
  const double chance = result.documents.empty() ? 0 : mean_chance(result.documents);
  for (const FilterPipeline& filter : task.filters) {
    for (const MetricDefinition& definition : task.metrics) {
      MetricResult metric{.metric = metric_key(definition.name, filter.name),
                          .unit = definition.unit,
                          .higher_is_better = definition.higher_is_better,
                          .headline = definition.headline && &filter == &task.filters.front(),
                          .is_mean = definition.aggregation == "mean",
                          .value = {},
                          .n = 0,
                          .chance = std::nullopt,
                          .base = std::nullopt};
      if (definition.aggregation.starts_with(kFunctionTag)) {
        const AggregateDocuments function = find_aggregation_function(definition.aggregation.substr(kFunctionTag.size()));
        metric.value = scaled({function(definition.name, result.documents), std::nullopt}, scale_of(definition.unit));
        metric.n = static_cast<int64_t>(result.documents.size());
      } else {
        const std::vector<Score> scores = scores_of(result.documents, metric.metric);
        metric.n = static_cast<int64_t>(scores.size());
        metric.value = scaled(aggregate(definition.aggregation, scores, bootstrap_draws), scale_of(definition.unit));
        if (chance > 0 && metric.is_mean) metric.chance = chance * scale_of(definition.unit);
      }
      result.metrics.push_back(std::move(metric));
    }
  }
}

void compare_documents(TaskResult& result, const TaskResult& base) {
  for (MetricResult& metric : result.metrics) {
    const MetricResult* other = base.find(metric.metric);
    if (other == nullptr) continue;
    const double scale = scale_of(metric.unit);
    const auto values = values_of(result.documents, metric.metric);
    const auto base_values = values_of(base.documents, metric.metric);
    BaseComparison comparison;
    comparison.base_value = other->value.value;
    comparison.difference.value = metric.value.value - other->value.value;
    if (metric.is_mean && !values.empty() && values.size() == base_values.size()) {
      comparison.difference = scaled(paired_difference(values, base_values), scale);
      comparison.retention = retention(values, base_values);
      if (metric.chance) comparison.retention_above_chance = retention_above_chance(values, base_values, *metric.chance / scale);
    } else if (metric.higher_is_better && other->value.value != 0) {
      comparison.retention = Estimate{metric.value.value / other->value.value, std::nullopt};
    }
    metric.base = comparison;
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
  }
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
      metric.is_mean = like.is_mean && wanted.weight_by_size;
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
