// What commands that run a configuration have in common: `salient run`, `salient sweep`, `salient hook`.
#pragma once

#include <vector>

#include "pipeline/commands/arguments.h"
#include "pipeline/commands/session.h"
#include "pipeline/run_config.h"
#include "pipeline/run_pipeline.h"

namespace salient::pipeline {

// --set, --tracking, --tracking-experiment, --dry-run, --json.
std::vector<OptionRow> run_options();

// Lines and bars go to standard error. `progress` outlives the observer.
RunObserver run_observer(ProgressLine& progress);

// Runs the configuration, or with --dry-run says what would run, and prints the result, as JSON with --json. Errors: those of
// plan_run and execute_run; after the result is printed: a run that broke, a retention below the bound (check failed).
void run_and_print(RunConfig config, const Arguments& arguments);

}  // namespace salient::pipeline
