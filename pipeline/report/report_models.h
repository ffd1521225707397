// Evaluated models as the store has them: all evaluations of one model put together.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// Which models a report is about. Both empty: the one that was evaluated last.
struct ReportSelection {
  std::string model;  // pattern over model names, as in EvaluationFilter
  std::optional<int64_t> run_id;
};

// A task of a merged evaluation, and where its documents lie.
struct ReportTask {
  int64_t evaluation_id = 0;
  int64_t task = 0;  // position among that evaluation's tasks
};

struct ReportModel {
  EvaluationRecord record;  // of the newest evaluation, but for `evaluation`: the merged one
  std::vector<ReportTask> tasks;
};

// Models in the order of their newest evaluation, their tasks in the order of evaluation. Of several evaluations of one model (its
// path and hash) against one base, the newest that has a task (its name and file), speed, or the cost of rounding while it runs,
// gives it; the verdict is that of all of them together. With `run_id`: the models that the run evaluated or, where its stages were
// up to date, made. Errors: not found, when the store has no such evaluation.
std::vector<ReportModel> find_report_models(const Store& store, const ReportSelection& selection);

}  // namespace salient::pipeline
