// A Slurm of one machine in a temporary folder: munged, slurmctld and slurmd of Debian's slurm-wlm, without systemd and without
// accounting. It ends with the object, and with the process that has it, however that dies.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace salient::test {

struct SlurmSettings {
  int cpus = 4;            // jobs at a time; the machine may have fewer
  int max_array_size = 4;  // tasks of an array, at most
  int min_job_age = 300;   // seconds for which ended jobs are known
};

class SlurmCluster {
 public:
  // Which of the programs are not there; nothing when all are. Debian's packages: slurm-wlm, munge.
  static std::optional<std::string> missing();

  // Sets SLURM_CONF of this process, for all that it starts. Throws std::runtime_error with the logs when the node is not idle
  // within 30 s.
  explicit SlurmCluster(const SlurmSettings& settings = {});
  ~SlurmCluster();
  SlurmCluster(const SlurmCluster&) = delete;
  SlurmCluster& operator=(const SlurmCluster&) = delete;

  // Words to scontrol, scancel and so on: what it printed. Throws when it fails.
  std::string call(const std::vector<std::string>& words) const;
  // "scontrol update NodeName=... State=DOWN": what runs there is lost. Then back.
  void lose_node() const;
  void return_node() const;
  // From the thread that made the cluster: a daemon ends with the thread that started it.
  void stop_controller();
  void start_controller();

  // "ID STATE" of all array tasks that are not ended, one a line.
  std::string queue() const;
  // How many arrays were ever submitted.
  int arrays_submitted() const;

 private:
  void start(const char* name, const std::vector<std::string>& words, pid_t& child);
  void stop(pid_t& child);
  void wait_until_idle() const;
  std::string logs() const;

  TemporaryFolder folder_;
  std::string host_;
  pid_t munged_ = -1;
  pid_t controller_ = -1;
  pid_t daemon_ = -1;
};

}  // namespace salient::test
