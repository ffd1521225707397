// What a batch evaluation ends with: a summary of every model, what was left out, and the ranked table; for people and as JSON.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/batch/model_listing.h"
#include "pipeline/batch/run_batch.h"
#include "pipeline/batch/stored_results.h"

namespace salient::pipeline {

struct BatchReport {
  std::vector<ModelOutcome> outcomes;
  std::vector<LeftOut> left_out;

  int64_t count(OutcomeState state) const;
};

// Tables of outcomes and left-out folders, then the ranking of all models that have results, then one line with the counts.
std::string report_text(const BatchReport& report, const BatchSettings& settings, const StoredResults& results);
// {"models": [{"model", "path", "format", "method", "bytes", "base", "base_evidence", "state", "reason", "attempts", "seconds"}],
// "left_out": [{"path", "reason"}], "ranking": ..., "counts": {"done": 1, ...}}
Json report_json(const BatchReport& report, const BatchSettings& settings, const StoredResults& results);

// A plan before anything is done, and with it the command that does each entry alone. `words`: see evaluation_command.
std::string plan_text(const std::vector<PlannedEvaluation>& plan, const std::vector<LeftOut>& left_out,
                      const BatchSettings& settings, const std::vector<std::string>& words);
// As report_json, with "state", "tasks", "throughput", "memory_bytes" and "command" of each model.
Json plan_json(const std::vector<PlannedEvaluation>& plan, const std::vector<LeftOut>& left_out, const BatchSettings& settings,
               const std::vector<std::string>& words);

}  // namespace salient::pipeline
