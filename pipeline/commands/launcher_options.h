// What commands that share their work out over jobs have in common: `salient launch`, `salient sweep`, `salient evaluate-all`.
#pragma once

#include <vector>

#include "pipeline/commands/arguments.h"
#include "pipeline/launcher/launch.h"
#include "pipeline/launcher/launch_progress.h"

namespace salient::pipeline {

// --detach.
OptionRow detach_option();
// --launcher, --launcher-set, --detach.
std::vector<OptionRow> with_launcher_rows(std::vector<OptionRow> rows);

// Lines and progress go to standard error. `progress` outlives the callbacks.
LaunchCallbacks launch_callbacks(LaunchProgress& progress);

}  // namespace salient::pipeline
