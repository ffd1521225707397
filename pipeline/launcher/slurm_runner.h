// Jobs as tasks of Slurm's job arrays. What was submitted is written down before and after sbatch, and found again by its job name
// when the process died in between.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/interrupt.h"
#include "pipeline/launcher/launch_state.h"
#include "pipeline/launcher/launcher_config.h"
#include "pipeline/launcher/slurm_commands.h"
#include "pipeline/launcher/try_end.h"

namespace salient::pipeline {

class SlurmRunner {
 public:
  // The jobs are resolved; all but `message` must outlive the runner. Errors: those of slurm_max_array.
  SlurmRunner(LaunchState& state, const std::vector<LaunchJob>& jobs, const LauncherConfig& config,
              std::function<void(const std::string&)> message);

  // Finds out what became of a submission whose sbatch was not heard of. Errors: io (SLURM_UNREACHABLE).
  void adopt();
  // Submits waiting jobs: all, or as many as max_submitted leaves room for. Errors: invalid argument (refused), io
  // (SLURM_UNREACHABLE).
  void submit(const Interrupt& interrupt);
  // Nothing while the controller does not answer.
  std::vector<TryEnd> look();
  // scancel, then waits for the end of all: how each ended. Two minutes at most, and no longer than until another signal comes.
  std::vector<TryEnd> cancel(const Interrupt& interrupt);
  int64_t running() const { return running_; }

 private:
  using Clock = std::chrono::steady_clock;

  void say(const std::string& line) const;
  std::filesystem::path folder_of(const Submission& submission) const;
  std::vector<size_t> submitted() const;
  std::vector<std::string> active_ids() const;
  void forget_ended_submissions();
  std::string find_array(const Submission& submission) const;
  void drop(int64_t number);
  std::string submit_array(const std::vector<size_t>& jobs, int64_t at_a_time, const std::string& after,
                           const Interrupt& interrupt);
  std::optional<TryEnd> decide(size_t job, const SlurmTask* task);
  bool is_late(size_t job);
  void tell_reasons(const std::vector<SlurmTask>& tasks);

  LaunchState& state_;
  const std::vector<LaunchJob>& jobs_;
  const LauncherConfig& config_;
  std::function<void(const std::string&)> message_;
  int64_t max_array_;
  int64_t running_ = 0;
  std::map<size_t, Clock::time_point> late_;  // jobs whose files should be there by now
  std::set<std::string> told_;                // reasons for waiting
  Clock::time_point answered_ = Clock::now();
  bool told_silence_ = false;
};

}  // namespace salient::pipeline
