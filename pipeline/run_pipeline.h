// The whole chain of `salient run` as stages: calibrate -> quantize -> detect -> evaluate (one stage a task) -> throughput.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "eval/result.h"
#include "pipeline/quantize_job.h"
#include "pipeline/run_config.h"
#include "pipeline/stage.h"
#include "pipeline/store.h"
#include "pipeline/training_metadata.h"

namespace salient::pipeline {

// What a run tells while it works. All may be empty.
struct RunObserver {
  std::function<void(const std::string& line)> message;
  // label "quantize", unit "blocks". A new label or total starts a new bar.
  std::function<void(const std::string& label, const std::string& unit, int64_t done, int64_t total)> progress;
};

struct RunReport {
  int64_t run_id = 0;
  std::filesystem::path artifact;
  std::filesystem::path calibration_file;
  // run_<id>.html beside the store, as a page has dates and artifacts are the same bytes every time. Empty where nothing was
  // evaluated.
  std::filesystem::path page;
  eval::Evaluation evaluation;  // without single documents
  int64_t stages_run = 0;
  int64_t stages_skipped = 0;
  Json tracking = Json::array();  // of RunTracker::summary
};

// The run's parts, resolved: a config checked against the files it names.
struct RunPlan {
  RunConfig config;
  std::filesystem::path model_folder;
  TrainingMetadata training;
  std::string artifact_name;  // "..._quantized"
  // What the stage "quantize" does; where there is a stage "calibrate", its "texts" are the calibration file.
  QuantizeJob job;
  std::vector<Stage> stages;
};

// Opens nothing but small files. Errors: not found (model, data), invalid argument (a task without a file; a spec that cannot be
// written).
RunPlan plan_run(const RunConfig& config, const RunObserver& observer);

// Errors: those of the stages.
RunReport execute_run(Store& store, const RunPlan& plan, const RunObserver& observer);

// hash_source_files, by the hashes that the store remembers.
Json stored_source_hashes(Store& store, const std::filesystem::path& model_folder);

// Errors: check failed with code ACCURACY_DEGRADATION when a headline score lost more than this share of the base's.
void check_retention(const eval::Evaluation& evaluation, double most);

}  // namespace salient::pipeline
