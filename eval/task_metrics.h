// The figures of a task from its scored documents, and those of groups of tasks.
#pragma once

#include <vector>

#include "eval/result.h"
#include "eval/task.h"

namespace salient::eval {

// "acc", "exact_match,strict-match": the key of lm-evaluation-harness, without its ",none".
std::string metric_key(const std::string& metric, const std::string& filter);

// Fills result.metrics from result.documents, one of each metric for each filter, and result.calibration.
void add_metrics(const TaskDefinition& task, int64_t bootstrap_draws, TaskResult& result);

// The figures of a group: means of its tasks, weighted by documents or not, with the pooled standard error (weighted) of
// lm-evaluation-harness 0.4.13. `tasks` are all results at hand; members that are missing are an internal error;
// of a group with a broken member nothing but a flag.
TaskResult group_result(const GroupDefinition& group, const std::vector<TaskResult>& tasks);

}  // namespace salient::eval
