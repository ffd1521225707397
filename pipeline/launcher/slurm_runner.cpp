#include "pipeline/launcher/slurm_runner.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "pipeline/launcher/child_process.h"
#include "pipeline/launcher/job_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// What another machine wrote may be seen this much later: attributes of network file systems are cached so long.
constexpr auto kFileDelay = std::chrono::seconds(60);
// A controller that restarts is away for some seconds; one that is silent longer is told once.
constexpr auto kSilence = std::chrono::seconds(30);
constexpr auto kCancelPatience = std::chrono::seconds(120);
constexpr std::array kSubmitWaits = {1, 2, 4, 8, 16};  // seconds, after an answer that did not come

// Reasons for which every job waits sooner or later.
constexpr std::array<std::string_view, 7> kUsualReasons = {"None",       "Priority",  "Resources", "JobArrayTaskLimit",
                                                           "Dependency", "BeginTime", "Cleaning"};

// Held by sbatch, too, which inherits it: while somebody has it, sbatch may still be speaking with the controller.
class SubmissionLock {
 public:
  explicit SubmissionLock(const fs::path& folder) : file_(folder / "lock") {
    descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_errno(file_, "open", errno);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(180);
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return;  // a file system without locks: the claim of try.sh is left
      if (std::chrono::steady_clock::now() > until) {
        ::close(descriptor_);
        throw Error(ErrorKind::kIo, fmt::format("{}: an sbatch of an earlier call still runs after three minutes", file_.string()))
            .with_code("SLURM_UNREACHABLE")
            .with_hint("'scontrol ping' says whether the controller is up; end that sbatch, and give the same command again");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  ~SubmissionLock() { ::close(descriptor_); }
  SubmissionLock(const SubmissionLock&) = delete;
  SubmissionLock& operator=(const SubmissionLock&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  fs::path file_;
  int descriptor_ = -1;
};

Error unreachable(const std::string& reason) {
  return Error(ErrorKind::kIo, fmt::format("Slurm's controller does not answer: {}", reason))
      .with_code("SLURM_UNREACHABLE")
      .with_hint("'scontrol ping' says whether it is up; jobs that run there go on, and the same command finds them again");
}

}  // namespace

SlurmRunner::SlurmRunner(LaunchState& state, const std::vector<LaunchJob>& jobs, const LauncherConfig& config,
                         std::function<void(const std::string&)> message)
    : state_(state), jobs_(jobs), config_(config), message_(std::move(message)), max_array_(slurm_max_array()) {}

void SlurmRunner::say(const std::string& line) const {
  if (message_) message_(line);
}

fs::path SlurmRunner::folder_of(const Submission& submission) const {
  return state_.folder() / "submissions" / std::to_string(submission.number);
}

std::vector<size_t> SlurmRunner::submitted() const {
  std::vector<size_t> found;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    if (state_.job(jobs_[i].name).status == JobStatus::kSubmitted) found.push_back(i);
  }
  return found;
}

std::vector<std::string> SlurmRunner::active_ids() const {
  std::set<std::string> ids;
  for (const size_t i : submitted()) ids.insert(state_.submission(state_.job(jobs_[i].name).submission).array_id);
  return {ids.begin(), ids.end()};
}

void SlurmRunner::forget_ended_submissions() {
  std::erase_if(state_.submissions(), [&](const Submission& submission) {
    return std::ranges::none_of(submission.jobs, [&](const std::string& name) {
      const JobRecord& record = state_.job(name);
      return record.status == JobStatus::kSubmitted && record.submission == submission.number;
    });
  });
}

// ---- after a kill ----

std::string SlurmRunner::find_array(const Submission& submission) const {
  const fs::path answer = folder_of(submission) / "sbatch.out";
  if (fs::exists(answer)) {
    if (const auto id = parse_sbatch_output(read_text_file(answer))) return *id;
  }
  std::string error;
  const auto tasks = query_tasks({submission.job_name}, error);
  if (!tasks) throw unreachable(error);
  if (!tasks->empty()) return tasks->front().array_id;
  // Ended so long ago that the controller has forgotten it.
  for (size_t i = 0; i < submission.jobs.size(); ++i) {
    const auto job = std::ranges::find(jobs_, submission.jobs[i], &LaunchJob::name);
    if (job == jobs_.end()) continue;
    if (const std::string claim = claim_of(*job, submission.tries[i]); !claim.empty()) return claim;
  }
  return {};
}

// The jobs of a submission that never came to be wait again.
void SlurmRunner::drop(int64_t number) {
  for (const std::string& name : state_.submission(number).jobs) {
    JobRecord& record = state_.job(name);
    if (record.status == JobStatus::kSubmitted && record.submission == number) record.status = JobStatus::kWaiting;
  }
  std::erase_if(state_.submissions(), [&](const Submission& submission) { return submission.number == number; });
}

void SlurmRunner::adopt() {
  for (const LaunchJob& job : jobs_) {
    JobRecord& record = state_.job(job.name);
    if (record.status == JobStatus::kSubmitted && record.submission == 0)
      record.status = JobStatus::kWaiting;  // a child of an earlier process
  }
  std::vector<int64_t> lost;
  for (Submission& submission : state_.submissions()) {
    if (!submission.array_id.empty()) continue;
    const SubmissionLock lock(folder_of(submission));
    submission.array_id = find_array(submission);
    if (submission.array_id.empty()) lost.push_back(submission.number);
  }
  for (const int64_t number : lost) drop(number);
  state_.save();
  const std::vector<size_t> found = submitted();
  if (!found.empty())
    say(fmt::format("{} of {} jobs were submitted before, as Slurm's {}", found.size(), jobs_.size(),
                    fmt::join(active_ids(), ", ")));
}

// ---- submitting ----

std::string SlurmRunner::submit_array(const std::vector<size_t>& jobs, int64_t at_a_time, const std::string& after,
                                      const Interrupt& interrupt) {
  Submission next;
  next.number = state_.next_submission();
  next.job_name = fmt::format("{}.{}", state_.name(), next.number);
  std::string list;
  for (const size_t i : jobs) {
    JobRecord& record = state_.job(jobs_[i].name);
    record.status = JobStatus::kSubmitted;
    record.submission = next.number;
    record.index = static_cast<int64_t>(next.jobs.size());
    next.jobs.push_back(jobs_[i].name);
    next.tries.push_back(record.tries + 1);
    list += fmt::format("{} {}\n", record.tries + 1, jobs_[i].folder.string());
  }
  SlurmArray array;
  array.job_name = next.job_name;
  array.folder = folder_of(next);
  array.tasks = static_cast<int64_t>(jobs.size());
  array.at_a_time = at_a_time;
  array.after = after;
  std::error_code ignored;
  fs::remove_all(array.folder, ignored);  // of a process that died before it wrote the submission down
  write_file(array.folder / "jobs.txt", list);
  write_file(array.folder / "array.sh",
             fmt::format("#!/bin/sh\n# One task of a job array of Salient: line SLURM_ARRAY_TASK_ID of jobs.txt, from 0.\n"
                         "line=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {})\n"
                         "exec sh {} \"${{line#* }}\" \"${{line%% *}}\" \"$SLURM_ARRAY_JOB_ID\"\n",
                         shell_quote((array.folder / "jobs.txt").string()), shell_quote((state_.folder() / "try.sh").string())));
  const SubmissionLock lock(array.folder);
  array.lock_descriptor = lock.descriptor();
  Submission& submission = state_.add_submission(std::move(next));
  state_.save();  // from here on a process that finds no id asks for one

  SbatchAnswer answer = call_sbatch(array, config_);
  for (const int seconds : kSubmitWaits) {
    if (!answer.array_id.empty() || !answer.temporary) break;
    say(fmt::format("sbatch: {}; trying again", answer.error));
    interrupt.sleep(std::chrono::seconds(seconds));
    // What timed out may have been taken all the same.
    std::string error;
    const auto tasks = query_tasks({array.job_name}, error);
    if (tasks && !tasks->empty()) answer.array_id = tasks->front().array_id;
    if (interrupt.count() > 0) break;
    if (tasks && tasks->empty()) answer = call_sbatch(array, config_);
  }
  submission.array_id = answer.array_id;
  if (!answer.array_id.empty()) {
    state_.save();
    return answer.array_id;
  }
  if (answer.temporary) throw unreachable(answer.error);  // written down as asked for: the next call looks whether it was taken
  drop(submission.number);
  state_.save();
  throw Error(ErrorKind::kInvalidArgument, fmt::format("sbatch refuses {} jobs: {} (called as: {})", jobs.size(), answer.error,
                                                       shell_command(sbatch_command(array, config_))))
      .with_code("SLURM_REFUSED")
      .with_hint(sbatch_hint(answer.error));
}

void SlurmRunner::submit(const Interrupt& interrupt) {
  forget_ended_submissions();
  const auto active = static_cast<int64_t>(submitted().size());
  std::vector<size_t> ready;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    if (state_.job(jobs_[i].name).status == JobStatus::kWaiting) ready.push_back(i);
  }
  if (config_.max_submitted > 0)
    ready.resize(std::min(ready.size(), static_cast<size_t>(std::max<int64_t>(config_.max_submitted - active, 0))));
  // An array bounds its own tasks only: what comes beside others has the room that they leave.
  const int64_t room = config_.max_jobs > 0 ? config_.max_jobs - active : 0;
  if (ready.empty() || (config_.max_jobs > 0 && room <= 0)) return;
  std::string before;
  for (size_t start = 0; start < ready.size() && interrupt.count() == 0; start += static_cast<size_t>(max_array_)) {
    const auto end = std::min(ready.size(), start + static_cast<size_t>(max_array_));
    const std::vector<size_t> jobs(ready.begin() + static_cast<std::ptrdiff_t>(start),
                                   ready.begin() + static_cast<std::ptrdiff_t>(end));
    // With a bound on all, the arrays of a launch that is longer than one run one after another.
    before = submit_array(jobs, before.empty() ? room : config_.max_jobs, config_.max_jobs > 0 ? before : "", interrupt);
    say(fmt::format("submitted {} jobs as Slurm's {}", jobs.size(), before));
  }
}

// ---- following ----

bool SlurmRunner::is_late(size_t job) {
  const auto [since, first] = late_.try_emplace(job, Clock::now());
  return Clock::now() - since->second > kFileDelay;
}

std::optional<TryEnd> SlurmRunner::decide(size_t i, const SlurmTask* task) {
  const LaunchJob& job = jobs_[i];
  const JobRecord& record = state_.job(job.name);
  const SlurmState* state = task != nullptr ? find_slurm_state(task->state) : nullptr;
  const SlurmMeaning meaning = state != nullptr ? state->meaning : task != nullptr ? SlurmMeaning::kRunning : SlurmMeaning::kEnded;
  const auto reason = [&] { return state->advice.empty() ? task->state : fmt::format("{}: {}", task->state, state->advice); };
  switch (meaning) {
    case SlurmMeaning::kQueued: return std::nullopt;
    case SlurmMeaning::kRunning: ++running_; return std::nullopt;
    case SlurmMeaning::kLost: return TryEnd{i, EndKind::kLost, -1, reason()};
    case SlurmMeaning::kHopeless: return TryEnd{i, EndKind::kHopeless, -1, reason()};
    case SlurmMeaning::kCancelled: return TryEnd{i, EndKind::kCancelled, -1, reason()};
    case SlurmMeaning::kEnded: break;
  }
  // By itself, or so long ago that the controller has forgotten it: the files say how.
  const std::optional<int> code = exit_code_of(job, record.tries + 1);
  if (code && (*code != 0 || has_results(job))) return TryEnd{i, EndKind::kExited, *code, {}};
  const std::string& id = state_.submission(record.submission).array_id;
  if (const std::string claim = claim_of(job, record.tries + 1); !code && !claim.empty() && claim != id) {
    return TryEnd{i, EndKind::kHopeless, kClaimedElsewhere,
                  fmt::format("Slurm job {} had begun the same try; when it has ended, give the same command again", claim)};
  }
  if (!is_late(i)) return std::nullopt;
  if (code) return TryEnd{i, EndKind::kExited, *code, {}};  // without results
  return TryEnd{i, EndKind::kLost, -1,
                task != nullptr ? fmt::format("{} ({}) without an exit code", task->state, task->reason)
                                : std::string("it left the queue without an exit code")};
}

void SlurmRunner::tell_reasons(const std::vector<SlurmTask>& tasks) {
  std::map<std::string, int64_t> reasons;
  for (const SlurmTask& task : tasks) {
    const SlurmState* state = find_slurm_state(task.state);
    if (state != nullptr && state->meaning == SlurmMeaning::kQueued &&
        std::ranges::find(kUsualReasons, task.reason) == kUsualReasons.end())
      ++reasons[task.reason];
  }
  for (const auto& [reason, count] : reasons) {
    if (told_.insert(reason).second) say(fmt::format("{} jobs wait in Slurm's queue: {}", count, reason));
  }
}

std::vector<TryEnd> SlurmRunner::look() {
  const std::vector<size_t> active = submitted();
  std::set<std::string> names;
  for (const size_t i : active) names.insert(state_.submission(state_.job(jobs_[i].name).submission).job_name);
  std::string error;
  const auto tasks = query_tasks({names.begin(), names.end()}, error);
  if (!tasks) {
    if (Clock::now() - answered_ > kSilence && !std::exchange(told_silence_, true))
      say(fmt::format("Slurm's controller does not answer ({}); still asking", error));
    return {};
  }
  answered_ = Clock::now();
  if (std::exchange(told_silence_, false)) say("Slurm's controller answers again");
  tell_reasons(*tasks);
  std::map<std::pair<std::string, int64_t>, const SlurmTask*> by_index;
  for (const SlurmTask& task : *tasks) by_index[{task.array_id, task.index}] = &task;
  std::vector<TryEnd> ends;
  running_ = 0;
  for (const size_t i : active) {
    const JobRecord& record = state_.job(jobs_[i].name);
    const auto task = by_index.find({state_.submission(record.submission).array_id, record.index});
    auto end = decide(i, task == by_index.end() ? nullptr : task->second);
    if (!end) continue;
    late_.erase(i);
    ends.push_back(std::move(*end));
  }
  return ends;
}

std::vector<TryEnd> SlurmRunner::cancel(const Interrupt& interrupt) {
  const int seen = interrupt.count();
  const std::vector<std::string> ids = active_ids();
  const auto until = Clock::now() + kCancelPatience;
  std::map<size_t, TryEnd> ends;
  std::string error = cancel_arrays(ids);
  for (;;) {
    for (TryEnd& end : look()) ends[end.job] = std::move(end);
    if (ends.size() == submitted().size() || interrupt.count() > seen || Clock::now() > until) break;
    if (!error.empty()) {
      say("scancel: " + error);
      error = cancel_arrays(ids);
    }
    interrupt.sleep(std::chrono::seconds(1), seen);
  }
  if (ends.size() < submitted().size())
    say(fmt::format("{} jobs are still ending; the same command looks after them", submitted().size() - ends.size()));
  std::vector<TryEnd> list;
  for (auto& [job, end] : ends) list.push_back(std::move(end));
  return list;
}

}  // namespace salient::pipeline
