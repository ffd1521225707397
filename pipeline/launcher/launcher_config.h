// Where jobs run and what each may take: the block `launcher` of a configuration, or a file of its own.
//
//   launcher: slurm                # short for {kind: slurm}
//   launcher:
//     kind: local                  # local: child processes of this one | slurm: job arrays by sbatch
//     max_jobs: 0                  # at a time; 0 = local one after another, slurm as many as there is room for
//     cpus: 0                      # of each job, also its threads; 0 = local: the cores shared out, slurm: what the partition gives
//     retries: 2                   # how often a job that failed or was lost is tried again
//     partition: gpu               # from here on slurm alone. Default of each: the cluster's own
//     time: 2:00:00                # as sbatch takes it: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s
//     memory: 16GB                 # of each job
//     gpus: 1                      # of each job; or TYPE:COUNT
//     account: research
//     qos: low
//     max_submitted: 0             # jobs in the queue at a time, where the cluster bounds them; 0 = all
//     options: [--exclude=node7]   # further options of sbatch, as they are
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/yaml.h"

namespace salient::pipeline {

enum class LauncherKind { kLocal, kSlurm };

std::string_view to_string(LauncherKind kind);

struct LauncherConfig {
  LauncherKind kind = LauncherKind::kLocal;
  int64_t max_jobs = 0;
  int64_t cpus = 0;
  int64_t retries = 2;
  std::string partition;
  std::string time;
  int64_t memory_mib = 0;  // 0: not given
  std::string gpus;
  std::string account;
  std::string qos;
  int64_t max_submitted = 0;
  std::vector<std::string> options;
};

// Of a null node: the defaults. Errors: invalid argument with place, for unknown keys, values that sbatch would not take, keys of
// Slurm where the kind is local, and options that Salient sets itself.
LauncherConfig read_launcher(const ConfigNode& node);

// What a command line says: "local", "slurm", or a YAML file that has the block `launcher` and nothing else. `overrides`:
// "max_jobs=4". Errors: not found, io, corruption, invalid argument.
LauncherConfig load_launcher(const std::string& kind_or_file, const std::vector<std::string>& overrides = {});

}  // namespace salient::pipeline
