#include "pipeline/launcher/local_runner.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "common/error.h"
#include "pipeline/launcher/job_files.h"

namespace salient::pipeline {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);

}  // namespace

LocalRunner::LocalRunner(LaunchState& state, const std::vector<LaunchJob>& jobs, int64_t at_a_time)
    : state_(state), jobs_(jobs), at_a_time_(static_cast<size_t>(std::max<int64_t>(at_a_time, 1))) {}

LocalRunner::~LocalRunner() {
  for (const auto& [child, job] : children_) ::kill(-child, SIGKILL);
  for (const auto& [child, job] : children_) ::waitpid(child, nullptr, 0);
}

void LocalRunner::adopt() {
  for (const LaunchJob& job : jobs_) {
    JobRecord& record = state_.job(job.name);
    if (record.status != JobStatus::kSubmitted) continue;
    if (record.submission != 0) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("job '{}' is in Slurm's queue (array {}) since this launch was given with launcher: slurm", job.name,
                              state_.submission(record.submission).array_id))
          .with_hint("give it with launcher: slurm again to follow it; interrupted there, it is cancelled and may run here");
    }
    record.status = JobStatus::kWaiting;  // it ended with the process that had started it
  }
  state_.save();
}

pid_t LocalRunner::start(const LaunchJob& job, int64_t number) const {
  std::vector<std::string> words = try_command(state_.folder(), job, number);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) fail(ErrorKind::kIo, "job '{}': cannot start a process: {}", job.name, std::strerror(errno));
  if (child > 0) {
    ::setpgid(child, child);  // here as well as there: whoever comes first
    return child;
  }
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // try.sh hands it on to the command
  if (::getppid() != parent) ::_exit(143);
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
  const int nothing = ::open("/dev/null", O_RDWR);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, stream);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

void LocalRunner::submit(const Interrupt& interrupt) {
  bool changed = false;
  std::vector<size_t> starting;
  for (size_t i = 0; i < jobs_.size() && children_.size() + starting.size() < at_a_time_ && interrupt.count() == 0; ++i) {
    JobRecord& record = state_.job(jobs_[i].name);
    if (record.status != JobStatus::kWaiting) continue;
    record.status = JobStatus::kSubmitted;
    record.submission = 0;
    starting.push_back(i);
    changed = true;
  }
  if (changed) state_.save();
  for (const size_t i : starting) children_[start(jobs_[i], state_.job(jobs_[i].name).tries + 1)] = i;
}

std::vector<TryEnd> LocalRunner::look() {
  std::vector<TryEnd> ends;
  for (auto child = children_.begin(); child != children_.end();) {
    int status = 0;
    const pid_t found = ::waitpid(child->first, &status, WNOHANG);
    if (found == 0) {
      ++child;
      continue;
    }
    const LaunchJob& job = jobs_[child->second];
    TryEnd end{child->second, EndKind::kExited, -1, {}};
    if (const auto code = exit_code_of(job, state_.job(job.name).tries + 1)) {
      end.exit_code = *code;
    } else {
      end.kind = EndKind::kLost;
      end.reason = found > 0 && WIFSIGNALED(status) ? fmt::format("killed by signal {}", WTERMSIG(status)) : "ended from outside";
    }
    ends.push_back(std::move(end));
    child = children_.erase(child);
  }
  return ends;
}

std::vector<TryEnd> LocalRunner::cancel(const Interrupt& interrupt) {
  const int seen = interrupt.count();
  const auto until = std::chrono::steady_clock::now() + kPatience;
  for (const auto& [child, job] : children_) ::kill(-child, SIGTERM);
  std::vector<TryEnd> ends;
  bool forced = false;
  for (;;) {
    for (TryEnd& end : look()) ends.push_back(std::move(end));
    if (children_.empty()) return ends;
    if (!forced && (std::chrono::steady_clock::now() > until || interrupt.count() > seen)) {
      for (const auto& [child, job] : children_) ::kill(-child, SIGKILL);
      forced = true;
    }
    interrupt.sleep(std::chrono::milliseconds(50), interrupt.count());
  }
}

}  // namespace salient::pipeline
