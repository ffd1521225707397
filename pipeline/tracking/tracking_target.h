// Where results are told: the block `tracking` of a run configuration, and --tracking of commands that have none.
//
//   tracking:
//     mlflow: http://localhost:5000     # true: the address in MLFLOW_TRACKING_URI; false: no tracking
//     experiment: salient               # default: MLFLOW_EXPERIMENT_NAME, else "salient"
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/yaml.h"

namespace salient::pipeline {

struct TrackingTarget {
  std::string sink;  // name of a row of pipeline/tracking/sinks.h
  std::string url;
  std::string experiment;
};

// Of the block; nothing where it is missing. Errors: invalid argument with the place, for unknown keys, addresses that are none or
// hold a password, and `true` where the environment names no address.
std::vector<TrackingTarget> read_tracking(const ConfigNode& block);

// "mlflow=http://localhost:5000", or "mlflow" for the address of the environment. `experiment`: empty for the default. Errors:
// invalid argument, beginning with `where` ("salient eval: --tracking").
TrackingTarget parse_tracking(std::string_view text, std::string_view experiment, std::string_view where);

// [{"sink", "url", "experiment"}]
Json to_json(const std::vector<TrackingTarget>& targets);

}  // namespace salient::pipeline
