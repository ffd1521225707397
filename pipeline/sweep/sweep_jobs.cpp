#include "pipeline/sweep/sweep_jobs.h"

#include <algorithm>

#include "common/hash.h"
#include "pipeline/launcher/job_files.h"

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

PartJobs sweep_jobs(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const fs::path& file,
                    const std::vector<std::string>& overrides, const fs::path& folder) {
  std::vector<bool> waits;
  std::vector<std::string> work;
  for (const RunPlan& plan : plans) {
    work.push_back(work_of(store, plan));
    waits.push_back(!work.back().empty());
  }
  PartJobs result;
  for (const LaunchPart& part : share_out(waits, config.launcher->max_jobs)) {
    LaunchJob job = part_job(part.name.empty() ? job_name(config.points[part.members.front()].name) : part.name, folder);
    job.command = {own_program().string(), "sweep", fs::absolute(file).lexically_normal().string()};
    for (const std::string& override : overrides) job.command.insert(job.command.end(), {"--set", override});
    job.command.insert(job.command.end(),
                       {"--set", "output=" + Json{{"folder", config.folder.string()}, {"store", job.store.string()}}.dump()});
    std::string key;
    for (const size_t point : part.members) {
      job.command.insert(job.command.end(), {"--only", config.points[point].name});
      key += work[point];
    }
    job.key = sha256_hex(key);
    result.jobs.push_back(std::move(job));
    result.members.push_back(part.members);
  }
  return result;
}

}  // namespace salient::pipeline
