// A sweep's points as jobs of a launcher: each job is `salient sweep` with some of the points and a store of its own, whose rows go
// into the sweep's store.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/launcher/launch_parts.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/sweep/sweep_config.h"

namespace salient::pipeline {

// Points that still have something to do, in at most config.launcher->max_jobs jobs, so that the points of a job share what they
// can; 0 = one a point. `file`, `overrides`: what the sweep was read from. `folder`: of the launch.
PartJobs sweep_jobs(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const std::filesystem::path& file,
                    const std::vector<std::string>& overrides, const std::filesystem::path& folder);

}  // namespace salient::pipeline
