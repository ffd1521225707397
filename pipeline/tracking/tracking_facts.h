// What a tracker is told of a run or an evaluation, taken from the store alone: so the same can be told again at any time, by any
// process.
//
// Keys of figures are "<task>/<metric>" with what belongs to it behind: "arc/acc", "arc/acc_stderr", "arc/acc_base",
// "arc/acc_retention", "arc/acc_flips_lost" (docs/tracking.md has them all). Times are those of the stage that measured, so that
// telling a figure again makes no second one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct TrackedMetric {
  std::string key;
  double value = 0;  // NaN and infinities are told, too
  int64_t time = 0;  // ms since 1970

  bool operator==(const TrackedMetric&) const = default;
};

// What belongs together and is known at the same time.
struct TrackingBatch {
  std::string name;                           // for listings: "settings", "stage quantize", "result"
  std::map<std::string, std::string> params;  // never change once told
  std::map<std::string, std::string> tags;    // "user" and "description" have a meaning for the tracker
  std::vector<TrackedMetric> metrics;
};

struct TrackingFile {
  std::string path;  // "report.html"
  std::string bytes;
};

struct TrackingFacts {
  std::string identity;  // SHA-256; facts with the same identity are of one tracked run
  std::string name;
  int64_t started = 0;  // ms since 1970
  std::vector<TrackingBatch> batches;
  std::vector<TrackingFile> files;
  std::string status;  // "running", "finished", "failed" or "killed"
  int64_t ended = 0;   // ms since 1970; 0 while it runs
};

// Name, configuration and the keys of the stages, which cover the program's version and the contents of all inputs: a run that is
// resumed is the same, one on a changed model is another.
std::string run_identity(std::string_view name, const Json& config, const std::vector<std::string>& stage_keys);

// Of a run at any moment: its configuration as params, of each stage that is done seconds and figures, and, once the run is done,
// the result and the report that stands beside the store. `identity`: empty for that of the recorded stages. Errors: not found,
// corruption.
TrackingFacts run_facts(Store& store, int64_t run_id, std::string identity = "");

// Of an evaluation outside a run. Figures of the same models, settings and tasks belong to one tracked run. Errors: those of
// report_data.
TrackingFacts evaluation_facts(Store& store, const EvaluationRecord& evaluation);

// A batch as the outbox keeps it: {"params": {..}, "tags": {..}, "metrics": [[key, value, time], ..]}, values that are not finite
// as the texts "NaN", "Infinity", "-Infinity", which JSON has no numbers for. Errors of reading: corruption.
std::string to_payload(const TrackingBatch& batch);
TrackingBatch batch_from_payload(std::string_view payload, std::string_view name);

// Nested values under keys joined by dots: {"a": {"b": [1]}} gives a.b.0 = 1. Null, empty texts, lists and maps are left out.
std::map<std::string, std::string> flat_params(const Json& value);

}  // namespace salient::pipeline
