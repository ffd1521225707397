// A sweep's points as jobs of a launcher: each job is `salient sweep` with some of the points and a store of its own, whose rows go
// into the sweep's store.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "pipeline/launcher/launch.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/store.h"
#include "pipeline/sweep/sweep_config.h"

namespace salient::pipeline {

struct SweepJobs {
  std::vector<LaunchJob> jobs;
  std::vector<std::vector<size_t>> points;  // of each job
};

// Points that still have something to do. As many jobs as config.launcher->max_jobs, so that the points of a job share what they
// can; 0 = one a point. `file`, `overrides`: what the sweep was read from. `folder`: of the launch.
SweepJobs sweep_jobs(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const std::filesystem::path& file,
                     const std::vector<std::string>& overrides, const std::filesystem::path& folder);

struct SweepLaunch {
  std::map<size_t, std::string> given_up;  // point -> why it is not done
  bool complete = true;                    // false: jobs were left in the queue (detach)
  int signal = 0;                          // LaunchResult::signal
};

// Runs the jobs and imports what each stored. Errors: those of launch() and import_store().
SweepLaunch launch_sweep(Store& store, const SweepConfig& config, const SweepJobs& jobs, const std::filesystem::path& folder,
                         bool detach, const LaunchCallbacks& callbacks);

}  // namespace salient::pipeline
