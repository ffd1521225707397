// All points of a sweep: quantized together where they can be, then each a run of its own. A sweep that was stopped, or got more
// points, goes on: what is done is not done again.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/result.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/sweep/sweep_config.h"

namespace salient::pipeline {

struct PointResult {
  std::string error;  // "" = done. Otherwise what stopped this point; the others went on
  int64_t run_id = 0;
  std::filesystem::path artifact;
  int64_t bytes = 0;            // of the tensors
  bool up_to_date = false;      // nothing had to be done
  eval::Evaluation evaluation;  // without single documents
};

struct SweepReport {
  std::vector<PointResult> points;  // in the order of the config
  int64_t shared = 0;               // quantized on a float pass with others, in this call
  double seconds = 0;
};

// The plans of all points, before any work. Errors: those of plan_run, with the point in front.
std::vector<RunPlan> plan_sweep(const SweepConfig& config, const RunObserver& observer);

// `given_up`: by point, why a job elsewhere has not done it; such a point is not tried here. Errors: io and corruption of the
// store; those of a point are in its result.
SweepReport run_sweep(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const RunObserver& observer,
                      const std::map<size_t, std::string>& given_up = {});

}  // namespace salient::pipeline
