// What a batch evaluation will do: one entry for each model, in the order in which they are worked through. Values only: another
// launcher can run single entries elsewhere (evaluation_command).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pipeline/batch/batch_settings.h"
#include "pipeline/batch/memory_need.h"
#include "pipeline/batch/stored_results.h"

namespace salient::pipeline {

enum class PlannedState {
  kEvaluate,
  kUpToDate,  // the store has all that is asked for
  kSkipped,   // too large, or the same files as another model
  kFailed     // the store has that it cannot be scored, or its files cannot be read
};
std::string_view to_string(PlannedState state);  // "evaluate", "up to date", "skipped", "failed"

struct PlannedEvaluation {
  ListedModel model;
  Pairing pairing;
  bool serves_as_base = false;  // for others of the plan
  PlannedState state = PlannedState::kEvaluate;
  std::string reason;  // of the state, where it needs one
  std::string model_hash;
  std::string base_hash;        // "" = no base
  std::vector<size_t> missing;  // positions in BatchSettings::requests
  bool throughput = false;      // speed is still to be measured
  MemoryNeed memory;
};

// Originals stand before the models that are compared with them, and these follow one another, so that each base is loaded once and
// its answers serve all. Copies of one model (the same files in two places) are evaluated once. Hashes files that the store does
// not know yet. `base_facts`: what the base is, for its memory; a base outside of the listing is looked at. Errors: those of the
// store, and of data that are not there.
std::vector<PlannedEvaluation> plan_evaluations(Store& store, const std::vector<ListedModel>& models, const BatchSettings& settings,
                                                const StoredResults& results);

// Why it does not fit into `limit` bytes; "" = it does. "needs 3.1 GiB (model 1.0 GiB, base 2.0 GiB, work 0.1 GiB), 2.0 GiB may be
// used".
std::string why_too_large(const MemoryNeed& need, uint64_t limit);

// The words behind "salient" that do one entry in a process of its own: {"eval", MODEL, "--compare-with", BASE, "--tasks", ...,
// words}. `words`: the settings that all have in common as they were given, --tasks left out. A later batch finds the results.
std::vector<std::string> evaluation_command(const PlannedEvaluation& planned, const BatchSettings& settings,
                                            const std::vector<std::string>& words);

}  // namespace salient::pipeline
