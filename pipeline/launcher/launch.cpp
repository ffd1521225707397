#include "pipeline/launcher/launch.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/interrupt.h"
#include "pipeline/launcher/job_files.h"
#include "pipeline/launcher/launch_state.h"
#include "pipeline/launcher/local_runner.h"
#include "pipeline/launcher/slurm_runner.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

// Local children cost nothing to look at; a cluster's controller serves everybody, so the longer it takes the less often it is
// asked.
constexpr auto kLocalPause = std::chrono::milliseconds(50);
constexpr auto kShortestPause = std::chrono::milliseconds(1000);
constexpr auto kLongestPause = std::chrono::milliseconds(15000);

std::chrono::milliseconds pause_between_looks(LauncherKind kind, Clock::duration since_change) {
  if (kind == LauncherKind::kLocal) return kLocalPause;
  return std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(since_change) / 20, kShortestPause, kLongestPause);
}

// Cores shared out, where several jobs run beside each other and nobody said how many each takes.
LauncherConfig with_threads(LauncherConfig config) {
  if (config.kind == LauncherKind::kLocal && config.cpus == 0 && config.max_jobs > 1) {
    config.cpus = std::max<int64_t>(1, static_cast<int64_t>(std::thread::hardware_concurrency()) / config.max_jobs);
  }
  return config;
}

// One launch at work. Runner: LocalRunner or SlurmRunner.
template <typename Runner>
class Launch {
 public:
  Launch(LaunchState& state, const std::vector<LaunchJob>& jobs, const LauncherConfig& config, Runner& runner,
         const LaunchCallbacks& callbacks)
      : state_(state), jobs_(jobs), config_(config), runner_(runner), callbacks_(callbacks) {}

  int run(const LaunchOptions& options) {
    const Interrupt interrupt(Interrupt::Second::kCounts);
    runner_.adopt();
    auto changed = Clock::now();
    for (;;) {
      const std::vector<TryEnd> ends = runner_.look();
      for (const TryEnd& end : ends) settle(end);
      if (!ends.empty()) changed = Clock::now();
      if (interrupt.count() == 0) runner_.submit(interrupt);
      report();
      if (is_over()) return 0;
      if (interrupt.count() > 0) {
        stop(interrupt);
        return interrupt.signal();
      }
      if (options.detach) return 0;
      if (ends.empty()) interrupt.sleep(pause_between_looks(config_.kind, Clock::now() - changed));
    }
  }

  std::vector<JobOutcome> outcomes() const {
    std::vector<JobOutcome> outcomes;
    for (const LaunchJob& job : jobs_) outcomes.push_back(outcome_of(job));
    return outcomes;
  }

 private:
  JobOutcome outcome_of(const LaunchJob& job) const {
    const JobRecord& record = state_.job(job.name);
    JobOutcome outcome{record.status, record.exit_code, record.tries, record.reason, {}, {}};
    if (record.tries > 0) outcome.log = try_folder(job, record.tries) / "log";
    if (!job.store.empty() && has_results(job)) outcome.results = results_file(job);
    return outcome;
  }

  void say(const std::string& line) const {
    if (callbacks_.message) callbacks_.message(line);
  }

  // The record is changed only after the caller has what belongs to it: a kill in between brings the end again.
  void settle(const TryEnd& end) {
    const LaunchJob& job = jobs_[end.job];
    JobRecord next = state_.job(job.name);
    ++next.tries;
    next.exit_code = end.exit_code;
    next.reason = end.reason;
    if (end.kind == EndKind::kCancelled) {
      next.status = JobStatus::kCancelled;
    } else if (end.kind == EndKind::kExited && end.exit_code == 0 && has_results(job)) {
      next.status = JobStatus::kDone;
      next.reason.clear();
    } else {
      if (end.kind == EndKind::kExited && end.exit_code == 0)
        next.reason = fmt::format("it left no {}", results_file(job).string());
      if (next.reason.empty()) next.reason = fmt::format("exit code {}", end.exit_code);
      ++next.failures;
      const bool is_final =
          end.kind == EndKind::kHopeless || next.failures > config_.retries ||
          (end.kind == EndKind::kExited && std::ranges::find(job.final_exit_codes, end.exit_code) != job.final_exit_codes.end());
      next.status = is_final ? JobStatus::kFailed : JobStatus::kWaiting;
      if (!is_final)
        say(fmt::format("job {}: {}; try {} of {} follows", job.name, next.reason, next.failures + 1, config_.retries + 1));
    }
    finish(job, next);
  }

  void finish(const LaunchJob& job, const JobRecord& next) {
    const JobRecord before = std::exchange(state_.job(job.name), next);
    const bool is_end = next.status == JobStatus::kDone || next.status == JobStatus::kFailed;
    if (is_end && callbacks_.finished) {
      try {
        callbacks_.finished(job, outcome_of(job));
      } catch (...) {
        state_.job(job.name) = before;
        throw;
      }
    }
    if (next.status == JobStatus::kFailed || next.status == JobStatus::kCancelled) {
      say(fmt::format("job {}: {}, {}; its log: {}", job.name, to_string(next.status), next.reason, outcome_of(job).log.string()));
    }
    state_.save();
  }

  void stop(const Interrupt& interrupt) {
    say("stopping: every job is cancelled");
    for (const TryEnd& end : runner_.cancel(interrupt)) {
      if (end.kind == EndKind::kExited && end.exit_code == 0) {  // it was faster
        settle(end);
        continue;
      }
      JobRecord& record = state_.job(jobs_[end.job].name);
      ++record.tries;
      record.exit_code = end.exit_code;
      record.status = JobStatus::kCancelled;
      record.reason = "interrupted";
    }
    for (const LaunchJob& job : jobs_) {
      JobRecord& record = state_.job(job.name);
      if (record.status != JobStatus::kWaiting) continue;
      record.status = JobStatus::kCancelled;
      record.reason = "interrupted before it began";
    }
    state_.save();
    report();
  }

  LaunchCounts counts() const {
    LaunchCounts counts;
    counts.total = static_cast<int64_t>(jobs_.size());
    for (const LaunchJob& job : jobs_) {
      switch (state_.job(job.name).status) {
        case JobStatus::kWaiting:
        case JobStatus::kSubmitted: ++counts.waiting; break;
        case JobStatus::kDone: ++counts.done; break;
        case JobStatus::kFailed: ++counts.failed; break;
        case JobStatus::kCancelled: ++counts.cancelled; break;
      }
    }
    counts.running = std::min(runner_.running(), counts.waiting);
    counts.waiting -= counts.running;
    return counts;
  }

  bool is_over() const {
    const LaunchCounts now = counts();
    return now.waiting + now.running == 0;
  }

  void report() const {
    if (callbacks_.progress) callbacks_.progress(counts());
  }

  LaunchState& state_;
  const std::vector<LaunchJob>& jobs_;
  const LauncherConfig& config_;
  Runner& runner_;
  const LaunchCallbacks& callbacks_;
};

}  // namespace

std::string to_string(const LaunchCounts& counts) {
  std::string text;
  const auto add = [&](int64_t count, const char* word) {
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, word);
  };
  add(counts.running, "running");
  add(counts.waiting, "waiting");
  add(counts.failed, "failed");
  add(counts.cancelled, "cancelled");
  return text;
}

LaunchResult launch(const std::vector<LaunchJob>& given, const LauncherConfig& given_config, const fs::path& folder,
                    const LaunchOptions& options, const LaunchCallbacks& callbacks) {
  const LauncherConfig config = with_threads(given_config);
  if (options.detach && config.kind != LauncherKind::kSlurm) {
    throw Error(ErrorKind::kInvalidArgument, "--detach: found the launcher local, whose jobs end with this process; expected slurm")
        .with_hint("leave --detach out, or use launcher: slurm");
  }
  const std::vector<LaunchJob> jobs = resolve_jobs(given, folder);
  LaunchState state(folder, jobs);
  for (const LaunchJob& job : jobs) write_job_files(job, config);
  write_try_script(state.folder());
  LaunchResult result;
  const auto work = [&](auto& runner) {
    Launch at_work(state, jobs, config, runner, callbacks);
    result.signal = at_work.run(options);
    result.outcomes = at_work.outcomes();
  };
  if (config.kind == LauncherKind::kSlurm) {
    SlurmRunner runner(state, jobs, config, callbacks.message);
    work(runner);
  } else {
    LocalRunner runner(state, jobs, config.max_jobs);
    work(runner);
  }
  return result;
}

}  // namespace salient::pipeline
