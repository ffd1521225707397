// Jobs as values: what a launcher runs, and what became of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace salient::pipeline {

// Exit codes after which another try would end the same: invalid argument, unsupported, a check that failed (common/error.h).
inline const std::vector<int> kFinalExitCodes = {2, 5, 7};

struct LaunchJob {
  std::string name;  // one of its kind in a launch: letters, digits, '.', '_', '-', '=', '+', not first a dot or dash
  std::vector<std::string> command;      // program and arguments
  std::filesystem::path working_folder;  // where the command runs; empty: the current one
  // Its own, seen under the same path by the machine that runs it: job.sh, one folder a try with log and exit code, and what the
  // command puts there. Empty: below the launch's folder.
  std::filesystem::path folder;
  // The store that the command works with, in `folder` as a rule. When the command has ended, however it did, its rows are exported
  // to results_file(). Empty: none.
  std::filesystem::path store;
  // What the work depends on besides the command, as a hash. A job that is done is not run again while command and key are the same
  // and its results are there.
  std::string key;
  std::vector<int> final_exit_codes = kFinalExitCodes;
};

enum class JobStatus { kWaiting, kSubmitted, kDone, kFailed, kCancelled };

std::string_view to_string(JobStatus status);

struct JobOutcome {
  JobStatus status = JobStatus::kWaiting;
  int exit_code = -1;             // of the last try; -1: it left none
  int64_t tries = 0;              // that have ended, over all calls
  std::string reason;             // why it is not done: "exit code 3", "TIMEOUT", ...
  std::filesystem::path log;      // of the last try
  std::filesystem::path results;  // the file to import; empty where the job has no store, or left none
};

}  // namespace salient::pipeline
