// Jobs as child processes, a number of them at a time. They end with this process, however it ends.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "common/interrupt.h"
#include "pipeline/launcher/launch_state.h"
#include "pipeline/launcher/try_end.h"

namespace salient::pipeline {

class LocalRunner {
 public:
  // The jobs are resolved; all must outlive the runner.
  LocalRunner(LaunchState& state, const std::vector<LaunchJob>& jobs, int64_t at_a_time);
  ~LocalRunner();  // ends what runs
  LocalRunner(const LocalRunner&) = delete;
  LocalRunner& operator=(const LocalRunner&) = delete;

  // Errors: invalid argument, when jobs of this launch are in Slurm's queue.
  void adopt();
  // Starts waiting jobs as far as there is room. Errors: io.
  void submit(const Interrupt& interrupt);
  std::vector<TryEnd> look();
  // Asks all to end, and after ten seconds, or at another signal, makes them: how each ended.
  std::vector<TryEnd> cancel(const Interrupt& interrupt);
  int64_t running() const { return static_cast<int64_t>(children_.size()); }

 private:
  pid_t start(const LaunchJob& job, int64_t number) const;

  LaunchState& state_;
  const std::vector<LaunchJob>& jobs_;
  size_t at_a_time_;
  std::map<pid_t, size_t> children_;  // process (and its group) -> job
};

}  // namespace salient::pipeline
