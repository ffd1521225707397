// The quantizations of a sweep's points that can share a float pass, before their runs begin: each run then finds its artifact
// finished, made from exactly its inputs, and takes it over.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pipeline/run_pipeline.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct SharedQuantization {
  int64_t shared = 0;              // points that were quantized on a pass with others
  std::vector<std::string> alone;  // why others are quantized by their own run, each reason once
};

// `plans`: of the points; those whose artifact is there already, that another process works on, or that have nobody to share with
// are left to their runs. What goes wrong with a single point is left to its run, too, which meets it again. `sweep`: names the
// work folder beside the store. Errors: those of calibration, io.
SharedQuantization quantize_shared(Store& store, const std::string& sweep, const std::vector<RunPlan>& plans,
                                   const RunObserver& observer);

}  // namespace salient::pipeline
