// --tracking of the commands that measure something.
#pragma once

#include <vector>

#include "pipeline/commands/arguments.h"
#include "pipeline/tracking/tracking_target.h"

namespace salient::pipeline {

inline const OptionRow kTrackingRow = {
    "tracking", "TRACKER",
    "send settings, figures and report to a tracker: mlflow=http://HOST:PORT, or mlflow for MLFLOW_TRACKING_URI; when it "
    "is away they wait in the store (docs/tracking.md)",
    true};
inline const OptionRow kTrackingExperimentRow = {"tracking-experiment", "NAME",
                                                 "the tracker's experiment; default: MLFLOW_EXPERIMENT_NAME, else salient"};

// Nothing where --tracking is not given. Errors: invalid argument.
std::vector<TrackingTarget> tracking_targets(const Arguments& arguments, const std::string& command);

}  // namespace salient::pipeline
