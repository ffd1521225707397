// The metrics that tasks can ask for by name, with what lm-evaluation-harness 0.4.13 takes for granted about each.
#pragma once

#include <string_view>
#include <vector>

#include "eval/task.h"

namespace salient::eval {

struct MetricRow {
  std::string_view name;
  OutputType type;
  std::string_view aggregation;
  Unit unit = Unit::kFraction;
  bool higher_is_better = true;
  bool by_default = false;  // where a task has no metric_list
};

// Null where the output type has no such metric.
const MetricRow* find_metric(std::string_view name, OutputType type);
// Why a metric that lm-evaluation-harness has is not computed here; empty for all others.
std::string_view why_refused(std::string_view name);
std::vector<std::string_view> metric_names(OutputType type);
std::vector<std::string_view> default_metrics(OutputType type);

}  // namespace salient::eval
