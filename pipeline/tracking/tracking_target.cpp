#include "pipeline/tracking/tracking_target.h"

#include <cstdlib>

#include "common/error.h"
#include "common/http.h"
#include "pipeline/setting_values.h"
#include "pipeline/tracking/sinks.h"

namespace salient::pipeline {
namespace {

constexpr const char* kExperiment = "salient";

std::string from_environment(std::string_view variable) {
  const char* value = std::getenv(std::string(variable).c_str());
  return value != nullptr ? value : "";
}

// `url` and `experiment`: empty for those of the environment.
TrackingTarget make_target(const TrackingSink& sink, std::string url, std::string_view experiment, const std::string& where) {
  std::string origin = where;
  if (url.empty()) {
    url = from_environment(sink.url_variable);
    if (url.empty()) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: no address is named, and the environment variable {} is not set", where, sink.url_variable))
          .with_hint(fmt::format(
              "name the server: {}: http://HOST:PORT in a configuration, --tracking {}=http://HOST:PORT on the command line",
              sink.name, sink.name));
    }
    origin = fmt::format("{}: {}", where, sink.url_variable);
  }
  TrackingTarget target{std::string(sink.name), check_http_url(url, origin), std::string(experiment)};
  if (target.experiment.empty()) target.experiment = from_environment(sink.experiment_variable);
  if (target.experiment.empty()) target.experiment = kExperiment;
  return target;
}

}  // namespace

std::vector<TrackingTarget> read_tracking(const ConfigNode& block) {
  std::vector<std::string> keys = {"experiment"};
  for (const TrackingSink& sink : tracking_sinks()) keys.emplace_back(sink.name);
  block.check_keys(keys);
  std::string experiment;
  if (block.has("experiment")) experiment = read_text(block.get("experiment"));
  std::vector<TrackingTarget> targets;
  for (const TrackingSink& sink : tracking_sinks()) {
    const ConfigNode& node = block.get(sink.name);
    if (node.is_null()) continue;
    const Json value = node.to_json();
    if (value == false) continue;
    if (value != true && !value.is_string()) node.reject("an address such as http://localhost:5000, true or false");
    const std::string where = fmt::format("{}: '{}'", node.where(), node.path());
    targets.push_back(make_target(sink, value == true ? "" : read_text(node), experiment, where));
  }
  return targets;
}

TrackingTarget parse_tracking(std::string_view text, std::string_view experiment, std::string_view where) {
  const size_t equals = text.find('=');
  const TrackingSink& sink =
      with_context(where, [&]() -> const TrackingSink& { return find_tracking_sink(text.substr(0, equals)); });
  if (equals == std::string_view::npos) return make_target(sink, "", experiment, std::string(where));
  if (equals + 1 == text.size())
    fail(ErrorKind::kInvalidArgument, "{}: found '{}', expected {}=http://HOST:PORT", where, text, sink.name);
  return make_target(sink, std::string(text.substr(equals + 1)), experiment, std::string(where));
}

Json to_json(const std::vector<TrackingTarget>& targets) {
  Json list = Json::array();
  for (const TrackingTarget& target : targets)
    list.push_back({{"sink", target.sink}, {"url", target.url}, {"experiment", target.experiment}});
  return list;
}

}  // namespace salient::pipeline
