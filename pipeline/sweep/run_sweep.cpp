#include "pipeline/sweep/run_sweep.h"

#include <fmt/format.h>

#include <chrono>
#include <map>

#include "common/error.h"
#include "pipeline/current_error.h"
#include "pipeline/state_cache.h"
#include "pipeline/sweep/shared_quantization.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

int64_t stored_bytes(const Store& store, const fs::path& artifact) {
  ArtifactFilter filter;
  filter.path = fs::absolute(artifact).lexically_normal().string();
  const std::vector<ArtifactRecord> found = store.list_artifacts(filter);
  return found.empty() ? 0 : found.front().bytes;
}

PointResult run_point(Store& store, const RunPlan& plan, const RunObserver& observer) {
  PointResult result;
  try {
    const RunReport report = execute_run(store, plan, observer);
    result.run_id = report.run_id;
    result.artifact = report.artifact;
    result.bytes = stored_bytes(store, report.artifact);
    result.up_to_date = report.stages_run == 0;
    result.evaluation = report.evaluation;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    result.error = line_of(error);
  }
  return result;
}

// The base of an adapter is the program's, not a point's (models::set_adapter_base).
void check_bases(const std::vector<RunPlan>& plans) {
  std::map<fs::path, std::string> bases;
  for (const RunPlan& plan : plans) {
    const auto [known, is_new] = bases.try_emplace(plan.model_folder, plan.config.base);
    if (is_new || known->second == plan.config.base) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("model.base: found '{}' and '{}' for points of one adapter, {}, expected one", known->second,
                            plan.config.base, plan.model_folder.string()))
        .with_hint("make a sweep for each base, with an output.folder of its own");
  }
}

}  // namespace

std::vector<RunPlan> plan_sweep(const SweepConfig& config, const RunObserver& observer) {
  std::vector<RunPlan> plans;
  for (const SweepPoint& point : config.points)
    plans.push_back(with_context(fmt::format("point {}", point.name), [&] { return plan_run(point.run, observer); }));
  check_bases(plans);
  return plans;
}

SweepReport run_sweep(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const RunObserver& observer,
                      const std::map<size_t, std::string>& given_up) {
  const auto started = std::chrono::steady_clock::now();
  SweepReport report;
  SharedQuantization shared;
  if (config.share && given_up.empty()) {
    shared = quantize_shared(store, config.name, plans, observer);
    report.shared = shared.shared;
    for (const std::string& reason : shared.alone) {
      if (observer.message)
        observer.message(fmt::format("points are quantized one after the other, not on one float pass: {}", reason));
    }
  }
  StateCache base_states(store);
  for (size_t i = 0; i < plans.size(); ++i) {
    if (const auto reason = given_up.find(i); reason != given_up.end()) {
      report.points.push_back({});
      report.points.back().error = reason->second;
      continue;
    }
    if (observer.message) observer.message(fmt::format("point {} of {}: {}", i + 1, plans.size(), config.points[i].name));
    report.points.push_back(run_point(store, plans[i], observer));
    if (const std::string& error = report.points.back().error; !error.empty() && observer.message)
      observer.message(fmt::format("point {} failed: {}", config.points[i].name, error));
  }
  remove_shared_work(store, shared);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

}  // namespace salient::pipeline
