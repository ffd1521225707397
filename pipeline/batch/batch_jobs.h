// A batch evaluation's models as jobs of a launcher: each job is `salient evaluate-all` with some of the models and a store of its
// own, whose rows go into the batch's store.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/batch/evaluation_plan.h"
#include "pipeline/batch/run_batch.h"
#include "pipeline/launcher/launch_parts.h"

namespace salient::pipeline {

// Entries that are to be evaluated, in at most `most` jobs of neighbours of the plan, which share their base; 0 = one a model.
// Members are positions in the plan. `models`: the folder that was listed. `words`: the settings as they were given, --tasks and
// --store left out; a job asks for the tasks that its models lack. `folder`: of the launch.
PartJobs batch_jobs(const std::vector<PlannedEvaluation>& plan, const BatchSettings& settings, const StoredResults& results,
                    const std::filesystem::path& models, const std::vector<std::string>& words, int64_t most,
                    const std::filesystem::path& folder);

// What became of the plan: `after` is what is planned now that the jobs have ended. Errors: none.
std::vector<ModelOutcome> launched_outcomes(const std::vector<PlannedEvaluation>& before, std::vector<PlannedEvaluation> after,
                                            const PartsLaunch& launched);

}  // namespace salient::pipeline
