// Works through a plan: loads, evaluates, stores; goes on after a failure; keeps a base in memory while models are compared with
// it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pipeline/batch/evaluation_plan.h"

namespace salient::pipeline {

enum class OutcomeState { kDone, kUpToDate, kSkipped, kFailed, kStopped };
std::string_view to_string(OutcomeState state);  // "done", "up to date", "skipped", "failed", "stopped"

struct ModelOutcome {
  PlannedEvaluation planned;
  OutcomeState state = OutcomeState::kStopped;
  std::string reason;  // why skipped; the error; of what is done the verdict in a sentence
  int64_t attempts = 0;
  double seconds = 0;  // of the last one
};

struct BatchEvents {
  std::function<void(const std::string& line)> note;  // what happens, one line each
  std::function<void(const std::string& label, const eval::EvaluationProgress& at)> progress;
  std::function<void()> end_of_progress;
};

// One outcome for each entry, in their order. Where there is something to do, the store gets a run of this name with a stage
// "evaluate:<label>" for each model; every result is stored as soon as it is there, and answers of an evaluation that is stopped
// are kept by request.
//
// An error ends one evaluation, not the batch. Failed ones are tried again when all others are done, up to settings.retries times,
// but for those that would fail again in the same way (invalid argument, unsupported, a check that failed). Without settings.memory
// a model is skipped that needs more than is free when its turn comes. What another process evaluates is waited for, and its
// results are taken. A stop that is asked for (common/cancellation.h) ends it with the outcome kStopped for what is left. Errors:
// those of the store.
std::vector<ModelOutcome> run_batch(Store& store, const std::string& run_name, std::vector<PlannedEvaluation> plan,
                                    const BatchSettings& settings, StoredResults& results, const BatchEvents& events);

}  // namespace salient::pipeline
