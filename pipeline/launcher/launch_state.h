// What a launch knows of its jobs, in launch.json: written whole after every change and before anything that depends on it, so that
// the process may be killed at any moment and the same command goes on. The format is {"launch", "format", "jobs": {name:
// JobRecord}, "submissions": [Submission]}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/file.h"
#include "pipeline/launcher/launch_job.h"

namespace salient::pipeline {

struct JobRecord {
  std::string hash;  // of command, working folder and key
  JobStatus status = JobStatus::kWaiting;
  int64_t tries = 0;       // that have ended; the next, or the one at work, has this number plus 1
  int64_t failures = 0;    // of them, since the job was last asked for: what `retries` bounds
  int64_t submission = 0;  // number of it, 0 = none
  int64_t index = 0;       // in the submission's array
  int exit_code = -1;
  std::string reason;
};

// One job array of Slurm.
struct Submission {
  int64_t number = 0;             // from 1
  std::string job_name;           // no other submission has it: by it one is found again whose id was not written down
  std::string array_id;           // empty: sbatch was called, and has not been heard of
  std::vector<std::string> jobs;  // by index
  std::vector<int64_t> tries;     // of each job, the number of the try
};

class LaunchState {
 public:
  // Takes the folder's lock, reads launch.json where there is one and matches it with the jobs: those that are done and unchanged
  // stay so, failed and cancelled ones wait again, others keep what they are. Jobs that are no longer asked for keep their records.
  // Errors: invalid argument (another process follows this launch; a job that is at work has another command now), corruption,
  // unsupported (of a newer version), io.
  LaunchState(const std::filesystem::path& folder, const std::vector<LaunchJob>& jobs);

  const std::filesystem::path& folder() const { return folder_; }
  const std::string& name() const { return name_; }  // "salient-1f2e3d4c5b6a", drawn once
  JobRecord& job(const std::string& name) { return jobs_.at(name); }
  const JobRecord& job(const std::string& name) const { return jobs_.at(name); }
  std::vector<Submission>& submissions() { return submissions_; }
  const Submission& submission(int64_t number) const;
  int64_t next_submission() const { return next_submission_; }
  Submission& add_submission(Submission submission);

  // Errors: io.
  void save() const;

 private:
  std::filesystem::path folder_;
  std::optional<FolderLock> lock_;
  std::string name_;
  std::map<std::string, JobRecord> jobs_;
  std::vector<Submission> submissions_;  // at work, and asked for
  int64_t next_submission_ = 1;
};

}  // namespace salient::pipeline
