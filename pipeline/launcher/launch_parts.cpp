#include "pipeline/launcher/launch_parts.h"

#include <fmt/format.h>

#include <algorithm>

#include "pipeline/store_transfer.h"

namespace salient::pipeline {
namespace fs = std::filesystem;

std::vector<LaunchPart> share_out(const std::vector<bool>& waits, int64_t most) {
  const size_t count = most > 0 ? std::min(static_cast<size_t>(most), waits.size()) : waits.size();
  std::vector<LaunchPart> parts;
  for (size_t number = 0; number < count; ++number) {
    const size_t begin = waits.size() * number / count;
    const size_t end = waits.size() * (number + 1) / count;
    LaunchPart part;
    if (end - begin > 1) part.name = fmt::format("part-{}-of-{}", number + 1, count);
    for (size_t i = begin; i < end; ++i) {
      if (waits[i]) part.members.push_back(i);
    }
    if (!part.members.empty()) parts.push_back(std::move(part));
  }
  return parts;
}

LaunchJob part_job(const std::string& name, const fs::path& launch_folder) {
  LaunchJob job;
  job.name = name;
  job.folder = fs::absolute(launch_folder / "jobs" / name);
  job.store = job.folder / "salient.db";
  return job;
}

PartsLaunch launch_parts(Store& store, const PartJobs& parts, const LauncherConfig& config, const fs::path& folder, bool detach,
                         const LaunchCallbacks& callbacks) {
  LaunchCallbacks with_import = callbacks;
  with_import.finished = [&](const LaunchJob& job, const JobOutcome& outcome) {
    if (!outcome.results.empty()) import_store(store, outcome.results);
    if (callbacks.finished) callbacks.finished(job, outcome);
  };
  LaunchOptions options;
  options.detach = detach;
  const LaunchResult result = launch(parts.jobs, config, folder, options, with_import);
  PartsLaunch launched;
  launched.signal = result.signal;
  for (size_t i = 0; i < parts.jobs.size(); ++i) {
    const JobOutcome& outcome = result.outcomes[i];
    if (outcome.status == JobStatus::kWaiting || outcome.status == JobStatus::kSubmitted) launched.complete = false;
    if (outcome.status == JobStatus::kDone) continue;
    for (const size_t member : parts.members[i])
      launched.given_up[member] =
          fmt::format("job {}: {}; its log: {}", parts.jobs[i].name,
                      outcome.reason.empty() ? to_string(outcome.status) : outcome.reason, outcome.log.string());
  }
  return launched;
}

}  // namespace salient::pipeline
