// The stages of a run that measure its artifact: a stage for each task, sensitivity, what 8 bits cost, speed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/run_pipeline.h"

namespace salient::pipeline {

// They share the two models, which are loaded when the first of them needs them. `name`: of the artifact. Errors: not found and
// invalid argument, naming the place in the config: unknown tasks, tasks without data, measurements that need a text where there is
// none.
std::vector<Stage> evaluate_stages(const RunConfig& config, const std::filesystem::path& model_folder, const std::string& base_name,
                                   const std::string& name, const RunObserver& observer);

}  // namespace salient::pipeline
