#include "pipeline/tracking/evaluation_metrics.h"

#include <fmt/format.h>

#include <limits>

namespace salient::pipeline {
namespace {

class Collector {
 public:
  explicit Collector(int64_t time) : time_(time) {}

  void add(const std::string& key, const Json& value) {
    // The store writes figures that are not finite as null.
    if (value.is_null()) {
      metrics.push_back({key, std::numeric_limits<double>::quiet_NaN(), time_});
    } else if (value.is_number()) {
      metrics.push_back({key, value.get<double>(), time_});
    }
  }

  // Every number of a flat or nested object, as <prefix><its keys joined by "_">.
  void add_all(const std::string& prefix, const Json& object) {
    for (const auto& [key, value] : object.items()) {
      if (value.is_object()) {
        add_all(prefix + key + "_", value);
      } else if (!value.is_boolean()) {
        add(prefix + key, value);
      }
    }
  }

  // One entry of "metrics": its value under the metric's own name, everything else behind it.
  void add_metric(const std::string& task, const Json& metric) {
    const std::string name = task + "/" + metric.at("metric").get<std::string>();
    for (const auto& [key, value] : metric.items()) {
      if (key == "value") {
        add(name, value);
      } else if (key == "base_value") {
        add(name + "_base", value);
      } else if (value.is_object()) {
        add_all(fmt::format("{}_{}_", name, key), value);
      } else if (!value.is_boolean() && !value.is_string()) {
        add(fmt::format("{}_{}", name, key), value);
      }
    }
  }

  std::vector<TrackedMetric> metrics;

 private:
  int64_t time_;
};

std::string numbered(const std::string& task, const std::multiset<std::string>& taken) {
  const size_t before = taken.count(task);
  return before == 0 ? task : fmt::format("{}:{}", task, before + 1);
}

void add_task(Collector& out, const std::string& name, const Json& task) {
  out.add(name + "/seconds", task.value("seconds", Json(0.0)));
  for (const Json& metric : task.at("metrics")) out.add_metric(name, metric);
  for (const char* count : {"truncated_prompts", "generations_at_length_limit"}) {
    if (task.contains(count)) out.add(fmt::format("{}/{}", name, count), task.at(count));
  }
  for (const char* part : {"calibration", "generations"}) {
    if (task.contains(part)) out.add_all(fmt::format("{}/{}_", name, part), task.at(part));
  }
  for (const Json& flag : task.value("flags", Json::array()))
    out.add(fmt::format("{}/flag_{}", name, flag.at("kind").get<std::string>()), flag.at("share"));
}

// The base's own figures; its values stand beside the model's already where the two were compared.
void add_base_task(Collector& out, const std::string& name, const Json& task, const std::set<std::string>& compared) {
  for (const Json& metric : task.at("metrics")) {
    const std::string metric_name = metric.at("metric").get<std::string>();
    const std::string key = fmt::format("{}/{}_base", name, metric_name);
    if (!compared.contains(metric_name)) out.add(key, metric.at("value"));
    if (metric.contains("stderr")) out.add(key + "_stderr", metric.at("stderr"));
  }
}

std::set<std::string> compared_metrics(const Json& task) {
  std::set<std::string> names;
  for (const Json& metric : task.at("metrics")) {
    if (metric.contains("base_value")) names.insert(metric.at("metric").get<std::string>());
  }
  return names;
}

}  // namespace

std::vector<TrackedMetric> evaluation_metrics(const Json& evaluation, int64_t time, std::multiset<std::string>& taken) {
  Collector out(time);
  const Json& model = evaluation.at("model");
  const Json base = evaluation.value("base", Json());
  const Json& tasks = model.at("tasks");
  for (size_t i = 0; i < tasks.size(); ++i) {
    const std::string task = tasks[i].at("task").get<std::string>();
    const std::string name = numbered(task, taken);
    taken.insert(task);
    add_task(out, name, tasks[i]);
    if (base.is_object() && i < base.at("tasks").size()) add_base_task(out, name, base.at("tasks")[i], compared_metrics(tasks[i]));
  }
  if (model.contains("throughput")) out.add_all("throughput/", model.at("throughput"));
  if (base.is_object() && base.contains("throughput")) out.add_all("throughput/base_", base.at("throughput"));
  for (const Json& cost : evaluation.value("runtime_costs", Json::array())) {
    const std::string name =
        fmt::format("runtime_cost_a{}_kv{}", cost.at("activation_bits").get<int>(), cost.at("kv_bits").get<int>());
    for (const Json& metric : cost.at("metrics")) out.add_metric(name, metric);
  }
  return std::move(out.metrics);
}

}  // namespace salient::pipeline
