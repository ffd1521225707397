// The quantizations of a sweep's points that can share a float pass, before their runs begin: each run then finds its artifact
// finished, made from exactly its inputs, and takes it over.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "pipeline/run_pipeline.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct SharedQuantization {
  int64_t shared = 0;                    // points that were quantized on a pass with others
  std::vector<std::string> alone;        // why others are quantized by their own run, each reason once
  std::set<std::filesystem::path> work;  // where passes of the sweep keep what a stopped one goes on from
};

// `plans`: of the points; those whose artifact is there already, that another process works on, or that have nobody to share with
// are left to their runs. What goes wrong with a single point is left to its run, too, which meets it again. `sweep`: names the
// work folder beside the store. Errors: those of calibration, io.
SharedQuantization quantize_shared(Store& store, const std::string& sweep, const std::vector<RunPlan>& plans,
                                   const RunObserver& observer);

// Removes what stopped passes of the sweep left, once all their points are there: these may have been quantized by others since, so
// that no pass came to its end. What another process works with stays. Errors: io.
void remove_shared_work(Store& store, const SharedQuantization& shared);

}  // namespace salient::pipeline
