// Runs jobs, here or on a cluster, until each is done or given up. The seam for whatever has many pieces of work: sweeps,
// evaluations of many models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "pipeline/launcher/launch_job.h"
#include "pipeline/launcher/launcher_config.h"

namespace salient::pipeline {

struct LaunchCounts {
  int64_t total = 0;
  int64_t waiting = 0;  // not started, in Slurm's queue or before it
  int64_t running = 0;
  int64_t done = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;
};

// "2 running, 3 waiting, 1 failed": what a progress line says beside done and total.
std::string to_string(const LaunchCounts& counts);

struct LaunchCallbacks {
  // Lines for the user. May be empty.
  std::function<void(const std::string& line)> message;
  // After every look at the jobs. May be empty.
  std::function<void(const LaunchCounts& counts)> progress;
  // A job has come to its end, as done or failed: outcome.results is to be imported now (import_store). Called once for each, in
  // the caller's thread; a second time when the process was killed before it was written down. What it throws ends launch(); the
  // job counts as not collected and comes again with the next call. May be empty.
  std::function<void(const LaunchJob& job, const JobOutcome& outcome)> finished;
};

struct LaunchOptions {
  bool detach = false;  // Slurm: submit and return
};

struct LaunchResult {
  std::vector<JobOutcome> outcomes;  // one a job, in their order
  int signal = 0;                    // SIGINT or SIGTERM, by which it was ended; all jobs are cancelled then
};

// Follows the jobs until none is left to wait for. `folder` (made) keeps what is known of them: the same call goes on after a kill
// at any moment, after --detach, after an interrupt, and with more jobs than before; it never submits again what is in Slurm's
// queue. Jobs that are done are not run again (LaunchJob::key); failed and cancelled ones are.
//   local: config.max_jobs at a time as child processes, which end with this one.
//   slurm: job arrays, as long as MaxArraySize allows. `folder` and everything that jobs read or write must lie on a file system
//   that all machines share.
// A try that fails or is lost (machine gone, time limit, killed) is followed by another one, config.retries times. SIGINT and
// SIGTERM cancel everything and come back as LaunchResult::signal; a second one does not wait for the end of what was cancelled.
// Errors: invalid argument (jobs that cannot be told apart, somebody else follows this launch, sbatch refuses), not found
// (SLURM_MISSING), io (SLURM_UNREACHABLE), those of the callbacks.
LaunchResult launch(const std::vector<LaunchJob>& jobs, const LauncherConfig& config, const std::filesystem::path& folder,
                    const LaunchOptions& options, const LaunchCallbacks& callbacks);

}  // namespace salient::pipeline
