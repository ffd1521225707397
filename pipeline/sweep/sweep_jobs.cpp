#include "pipeline/sweep/sweep_jobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/hash.h"
#include "pipeline/launcher/job_files.h"
#include "pipeline/store_transfer.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// Everything that the stages of a point depend on; empty when all of them are done.
std::string work_of(Store& store, const RunPlan& plan) {
  std::string keys;
  bool runs = false;
  for (const PlannedStage& stage : plan_stages(store, plan.config.name, plan.stages)) {
    keys += stage.key + "\n";
    runs = runs || stage.runs;
  }
  return runs ? keys : "";
}

// A comma is not for names of jobs.
std::string job_name(const std::string& point) {
  std::string name = point;
  std::replace(name.begin(), name.end(), ',', '+');
  return name;
}

}  // namespace

SweepJobs sweep_jobs(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const fs::path& file,
                     const std::vector<std::string>& overrides, const fs::path& folder) {
  std::vector<size_t> waiting;
  std::vector<std::string> work(plans.size());
  for (size_t i = 0; i < plans.size(); ++i) {
    work[i] = work_of(store, plans[i]);
    if (!work[i].empty()) waiting.push_back(i);
  }
  SweepJobs result;
  if (waiting.empty()) return result;
  const auto most = static_cast<size_t>(config.launcher->max_jobs);
  const size_t count = most > 0 ? std::min(most, waiting.size()) : waiting.size();
  for (size_t number = 0; number < count; ++number) {
    const std::vector<size_t> points(waiting.begin() + static_cast<std::ptrdiff_t>(waiting.size() * number / count),
                                     waiting.begin() + static_cast<std::ptrdiff_t>(waiting.size() * (number + 1) / count));
    LaunchJob job;
    job.name = points.size() == 1 ? job_name(config.points[points.front()].name) : fmt::format("part-{}-of-{}", number + 1, count);
    job.folder = fs::absolute(folder / "jobs" / job.name);
    job.store = job.folder / "salient.db";
    job.command = {own_program().string(), "sweep", fs::absolute(file).lexically_normal().string()};
    for (const std::string& override : overrides) job.command.insert(job.command.end(), {"--set", override});
    job.command.insert(job.command.end(),
                       {"--set", "output=" + Json{{"folder", config.folder.string()}, {"store", job.store.string()}}.dump()});
    std::string key;
    for (const size_t point : points) {
      job.command.insert(job.command.end(), {"--only", config.points[point].name});
      key += work[point];
    }
    job.key = sha256_hex(key);
    result.jobs.push_back(std::move(job));
    result.points.push_back(points);
  }
  return result;
}

SweepLaunch launch_sweep(Store& store, const SweepConfig& config, const SweepJobs& jobs, const fs::path& folder, bool detach,
                         const LaunchCallbacks& callbacks) {
  LaunchCallbacks with_import = callbacks;
  with_import.finished = [&](const LaunchJob& job, const JobOutcome& outcome) {
    if (!outcome.results.empty()) import_store(store, outcome.results);
    if (callbacks.finished) callbacks.finished(job, outcome);
  };
  LaunchOptions options;
  options.detach = detach;
  const LaunchResult result = launch(jobs.jobs, *config.launcher, folder, options, with_import);
  SweepLaunch launched;
  launched.signal = result.signal;
  for (size_t i = 0; i < jobs.jobs.size(); ++i) {
    const JobOutcome& outcome = result.outcomes[i];
    if (outcome.status == JobStatus::kWaiting || outcome.status == JobStatus::kSubmitted) launched.complete = false;
    if (outcome.status == JobStatus::kDone) continue;
    for (const size_t point : jobs.points[i])
      launched.given_up[point] =
          fmt::format("job {}: {}; its log: {}", jobs.jobs[i].name,
                      outcome.reason.empty() ? to_string(outcome.status) : outcome.reason, outcome.log.string());
  }
  return launched;
}

}  // namespace salient::pipeline
