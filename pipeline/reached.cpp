#include "pipeline/reached.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "common/text.h"
#include "pipeline/explanation.h"

namespace salient::pipeline {
namespace {

// "model.layers.3.mlp.experts.7.down_proj" -> "model.layers.3.mlp" and 7.
std::pair<std::string, int64_t> expert_of(const std::string& linear) {
  const size_t last = linear.rfind('.');
  const size_t number = last == std::string::npos || last == 0 ? last : linear.rfind('.', last - 1);
  if (number == std::string::npos) return {linear, 0};
  const size_t list = linear.rfind('.', number - 1);
  const std::string index = linear.substr(number + 1, last - number - 1);
  const bool digits =
      !index.empty() && index.size() < 10 && std::all_of(index.begin(), index.end(), [](char c) { return c >= '0' && c <= '9'; });
  return {linear.substr(0, list == std::string::npos ? number : list), digits ? std::stoll(index) : 0};
}

}  // namespace

void add_reached(calibration::CoverageReport& coverage, std::span<const LinearReport> reports) {
  coverage.channels.clear();
  coverage.experts.clear();
  // Linears that read one input have the same statistics of it.
  std::set<std::tuple<int64_t, int64_t, int64_t, std::vector<double>>> inputs;
  std::map<std::string, std::set<int64_t>> experts;
  std::map<std::string, std::set<int64_t>> unreached;
  std::vector<std::string> order;
  for (const LinearReport& report : reports) {
    const bool first =
        report.dead_channels > 0 &&
        inputs.emplace(block_of(report.name), report.dead_channels, report.in_features, report.salience_quantiles).second;
    if (first) coverage.channels.push_back({report.name, report.in_features, report.dead_channels});
    if (report.routed_tokens < 0) continue;
    const auto [name, expert] = expert_of(report.name);
    if (!experts.contains(name)) order.push_back(name);
    experts[name].insert(expert);
    if (report.routed_tokens == 0) unreached[name].insert(expert);
  }
  for (const std::string& name : order) {
    const std::set<int64_t>& never = unreached[name];
    if (!never.empty())
      coverage.experts.push_back({name, static_cast<int64_t>(experts[name].size()), {never.begin(), never.end()}});
  }
}

Json with_reached(Json calibration_record, std::span<const LinearReport> reports) {
  if (!calibration_record.is_object() || !calibration_record.contains("coverage")) return calibration_record;
  calibration::CoverageReport coverage = calibration::coverage_from_json(calibration_record["coverage"], "coverage");
  add_reached(coverage, reports);
  calibration_record["coverage"] = calibration::to_json(coverage);
  return calibration_record;
}

}  // namespace salient::pipeline
