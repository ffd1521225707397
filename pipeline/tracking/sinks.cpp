#include "pipeline/tracking/sinks.h"

#include <array>
#include <vector>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/tracking/mlflow.h"

namespace salient::pipeline {
namespace {

constexpr std::array kSinks = {
    TrackingSink{"mlflow", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", mlflow_http_options, mlflow_open_run, mlflow_deliver,
                 mlflow_link},
};

}  // namespace

std::span<const TrackingSink> tracking_sinks() { return kSinks; }

const TrackingSink& find_tracking_sink(std::string_view name) {
  std::vector<std::string> names;
  for (const TrackingSink& sink : kSinks) {
    if (sink.name == name) return sink;
    names.emplace_back(sink.name);
  }
  fail(ErrorKind::kInvalidArgument, "found the tracker '{}', expected {}{}", name, list_choices(names), did_you_mean(name, names));
}

}  // namespace salient::pipeline
