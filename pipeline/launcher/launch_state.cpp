#include "pipeline/launcher/launch_state.h"

#include <array>
#include <random>
#include <utility>

#include "common/error.h"
#include "common/hash.h"
#include "common/json.h"
#include "pipeline/launcher/job_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kFormat = 1;
constexpr std::array kStatuses = {JobStatus::kWaiting, JobStatus::kSubmitted, JobStatus::kDone, JobStatus::kFailed,
                                  JobStatus::kCancelled};

// Different on every machine at every time: the one thing here that must not follow from a seed.
std::string draw_name() {
  std::random_device random;
  return fmt::format("salient-{:08x}{:04x}", random(), random() & 0xffffu);
}

std::string hash_of(const LaunchJob& job) {
  return sha256_hex(dump_json({{"command", job.command}, {"working_folder", job.working_folder.string()}, {"key", job.key}}));
}

JobStatus parse_status(const std::string& text, const std::string& where) {
  for (const JobStatus status : kStatuses) {
    if (to_string(status) == text) return status;
  }
  fail(ErrorKind::kCorruption, "{}: found the status '{}', expected that of a job", where, text);
}

Json to_json(const JobRecord& job) {
  return {{"hash", job.hash},
          {"status", to_string(job.status)},
          {"tries", job.tries},
          {"failures", job.failures},
          {"submission", job.submission},
          {"index", job.index},
          {"exit_code", job.exit_code},
          {"reason", job.reason}};
}

JobRecord read_job(const Json& json, const std::string& where) {
  JobRecord job;
  job.hash = require<std::string>(json, "hash", where);
  job.status = parse_status(require<std::string>(json, "status", where), where);
  job.tries = require<int64_t>(json, "tries", where);
  job.failures = require<int64_t>(json, "failures", where);
  job.submission = require<int64_t>(json, "submission", where);
  job.index = require<int64_t>(json, "index", where);
  job.exit_code = static_cast<int>(require<int64_t>(json, "exit_code", where));
  job.reason = require<std::string>(json, "reason", where);
  return job;
}

Submission read_submission(const Json& json, const std::string& where) {
  Submission submission;
  submission.number = require<int64_t>(json, "number", where);
  submission.job_name = require<std::string>(json, "job_name", where);
  submission.array_id = require<std::string>(json, "array_id", where);
  for (const Json& entry : require<Json>(json, "jobs", where)) {
    submission.jobs.push_back(require<std::string>(entry, "name", where));
    submission.tries.push_back(require<int64_t>(entry, "try", where));
  }
  return submission;
}

}  // namespace

LaunchState::LaunchState(const fs::path& folder, const std::vector<LaunchJob>& jobs)
    : folder_(fs::absolute(folder).lexically_normal()) {
  std::error_code code;
  fs::create_directories(folder_, code);
  if (code) fail(ErrorKind::kIo, "{}: cannot create the folder: {}", folder_.string(), code.message());
  if (auto lock = FolderLock::try_lock(folder_)) {
    lock_.emplace(std::move(*lock));
  } else {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: another process follows this launch", folder_.string()))
        .with_hint("wait for it, or end it; other jobs go into another folder");
  }
  const fs::path file = folder_ / "launch.json";
  const std::string where = file.string();
  if (fs::exists(file)) {
    const Json json = read_json_file(file);
    if (const auto format = require<int64_t>(json, "format", where); format > kFormat) {
      fail(ErrorKind::kUnsupported, "{}: has format {}, this version of salient knows formats up to {}", where, format, kFormat);
    }
    name_ = require<std::string>(json, "launch", where);
    next_submission_ = require<int64_t>(json, "next_submission", where);
    const Json records = require<Json>(json, "jobs", where);
    for (const auto& [name, job] : records.items()) jobs_[name] = read_job(job, where + ": " + name);
    for (const Json& submission : require<Json>(json, "submissions", where))
      submissions_.push_back(read_submission(submission, where));
  } else {
    name_ = draw_name();
  }
  for (const LaunchJob& job : jobs) {
    JobRecord& record = jobs_[job.name];
    const std::string hash = hash_of(job);
    if (record.status == JobStatus::kSubmitted) {
      if (record.hash != hash && record.submission != 0) {
        throw Error(ErrorKind::kInvalidArgument,
                    fmt::format("job '{}' is in Slurm's queue with another command or other inputs than those given now", job.name))
            .with_hint("give the command as it was to follow it, or scancel it; or use another folder for this launch");
      }
      record.hash = hash;
      continue;
    }
    const bool stays = record.hash == hash && record.status == JobStatus::kDone && has_results(job);
    if (stays) continue;
    record.hash = hash;
    record.status = JobStatus::kWaiting;
    record.failures = 0;
    record.exit_code = -1;
    record.reason.clear();
  }
  save();
}

const Submission& LaunchState::submission(int64_t number) const {
  for (const Submission& submission : submissions_) {
    if (submission.number == number) return submission;
  }
  fail(ErrorKind::kCorruption, "{}: a job names submission {}, which is not there", (folder_ / "launch.json").string(), number);
}

Submission& LaunchState::add_submission(Submission submission) {
  next_submission_ = submission.number + 1;
  return submissions_.emplace_back(std::move(submission));
}

void LaunchState::save() const {
  Json jobs = Json::object();
  for (const auto& [name, job] : jobs_) jobs[name] = to_json(job);
  Json submissions = Json::array();
  for (const Submission& submission : submissions_) {
    Json entries = Json::array();
    for (size_t i = 0; i < submission.jobs.size(); ++i)
      entries.push_back({{"name", submission.jobs[i]}, {"try", submission.tries[i]}});
    submissions.push_back({{"number", submission.number},
                           {"job_name", submission.job_name},
                           {"array_id", submission.array_id},
                           {"jobs", std::move(entries)}});
  }
  write_file(folder_ / "launch.json", dump_json({{"format", kFormat},
                                                 {"launch", name_},
                                                 {"jobs", std::move(jobs)},
                                                 {"submissions", std::move(submissions)},
                                                 {"next_submission", next_submission_}},
                                                1) +
                                          "\n");
}

}  // namespace salient::pipeline
