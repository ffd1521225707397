// The launcher on this machine, and what it keeps of a launch. With Slurm: slurm_launch_test.cpp.
#include "pipeline/launcher/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <map>
#include <sstream>
#include <thread>

#include "common/json.h"
#include "common/text.h"
#include "pipeline/launcher/child_process.h"
#include "pipeline/launcher/job_files.h"
#include "pipeline/launcher/launch_parts.h"
#include "pipeline/launcher/launch_progress.h"
#include "pipeline/launcher/launch_state.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class LaunchTest : public testing::Test {
 protected:
  const fs::path& folder() const { return folder_.path(); }
  LaunchJob job(const std::string& name, const std::string& script) const {
    LaunchJob job;
    job.name = name;
    job.command = {"sh", "-c", "echo " + name + " >>" + shell_quote((folder() / "ran").string()) + "\n" + script};
    return job;
  }
  std::vector<std::string> ran() const {
    std::vector<std::string> lines = split(test::file_bytes(folder() / "ran"), '\n');
    lines.pop_back();
    return lines;
  }
  LaunchResult run(const std::vector<LaunchJob>& jobs) {
    LaunchCallbacks callbacks;
    callbacks.message = [this](const std::string& line) { messages_ += line + "\n"; };
    callbacks.finished = finished_;
    return launch(jobs, config_, folder() / "launch", {}, callbacks);
  }
  // launch() in a process of its own, which ends with the signal that stopped it.
  pid_t start(const std::vector<LaunchJob>& jobs) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    try {
      ::_exit(run(jobs).signal);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "launch: %s\n", error.what());
    }
    ::_exit(99);
  }
  std::string refusal(const std::vector<LaunchJob>& jobs) {
    return test::message_of([&] { run(jobs); }, ErrorKind::kInvalidArgument);
  }

  TemporaryFolder folder_;
  LauncherConfig config_;
  std::string messages_;
  std::function<void(const LaunchJob&, const JobOutcome&)> finished_;
};

TEST_F(LaunchTest, RunsOneJobAfterAnotherAndKeepsWhatEachSays) {
  const LaunchResult result = run({job("a", "echo out; echo err >&2; pwd"), job("b", "echo second")});
  EXPECT_THAT(ran(), ElementsAre("a", "b"));
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone);
  EXPECT_EQ(test::file_bytes(result.outcomes[0].log), "out\nerr\n" + fs::current_path().string() + "\n");
  EXPECT_EQ(test::file_bytes(folder() / "launch/jobs/b/try-1/log"), "second\n");
  EXPECT_EQ(test::file_bytes(folder() / "launch/jobs/b/try-1/exit_code"), "0\n");
  EXPECT_EQ(result.signal, 0);
}

TEST_F(LaunchTest, RunsSeveralAtATimeWithTheCoresSharedOut) {
  config_.max_jobs = 2;
  const std::string meet = "touch " + folder().string() +
                           "/$ME; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e " + folder().string() +
                           "/$OTHER ] && exit 0; sleep 0.5; done; exit 1";
  // Each waits for the other to be there.
  const LaunchResult result =
      run({job("a", "ME=x OTHER=y; " + meet), job("b", "ME=y OTHER=x; " + meet), job("c", "echo $OMP_NUM_THREADS")});
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone) << outcome.reason;
  EXPECT_EQ(test::file_bytes(result.outcomes[2].log), fmt::format("{}\n", std::max(1u, std::thread::hardware_concurrency() / 2)));
}

TEST_F(LaunchTest, TriesAgainAsOftenAsAskedFor) {
  config_.retries = 1;
  const std::string marker = (folder() / "marker").string();
  const LaunchResult result = run({job("once", "[ -e " + marker + " ] || { touch " + marker + "; exit 3; }"),
                                   job("always", "exit 4"), job("invalid", "exit 2"), job("killed", "kill -9 $$")});
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone);
  EXPECT_EQ(result.outcomes[0].tries, 2);
  EXPECT_EQ(result.outcomes[1].status, JobStatus::kFailed);
  EXPECT_EQ(result.outcomes[1].reason, "exit code 4");
  EXPECT_EQ(result.outcomes[1].tries, 2);
  EXPECT_EQ(result.outcomes[2].tries, 1);  // another try would end the same
  EXPECT_EQ(result.outcomes[3].exit_code, 137);
  EXPECT_EQ(std::ranges::count(ran(), "always"), 2);
}

TEST_F(LaunchTest, WhatIsDoneIsNotRunAgainUnlessItChanges) {
  std::vector<LaunchJob> jobs = {job("a", ""), job("b", "exit 5")};
  run(jobs);
  run(jobs);
  EXPECT_THAT(ran(), ElementsAre("a", "b", "b"));  // failed ones are
  jobs[0].key = "other inputs";
  run({jobs[0]});
  EXPECT_EQ(std::ranges::count(ran(), "a"), 2);
  jobs[0].command.back() += "true";
  run({jobs[0]});
  EXPECT_EQ(std::ranges::count(ran(), "a"), 3);
}

TEST_F(LaunchTest, AJobIsDoneWhenItsResultsAreTaken) {
  int64_t calls = 0;
  finished_ = [&](const LaunchJob&, const JobOutcome& outcome) {
    EXPECT_EQ(outcome.status, JobStatus::kDone);
    if (++calls == 1) throw Error(ErrorKind::kIo, "the disk is full");
  };
  EXPECT_THROW(run({job("a", "")}), Error);
  EXPECT_EQ(run({job("a", "")}).outcomes[0].status, JobStatus::kDone);
  run({job("a", "")});
  EXPECT_EQ(calls, 2);
}

TEST_F(LaunchTest, AStoreThatTheCommandDoesNotMakeIsAFailure) {
  LaunchJob storeless = job("a", "");
  storeless.store = folder() / "nowhere.db";
  config_.retries = 0;
  const JobOutcome outcome = run({storeless}).outcomes[0];
  EXPECT_EQ(outcome.status, JobStatus::kFailed);
  EXPECT_TRUE(outcome.results.empty());
  EXPECT_THAT(test::file_bytes(outcome.log), HasSubstr("the job made no store"));
}

TEST_F(LaunchTest, JobsThatCannotBeToldApartAreRefused) {
  EXPECT_THAT(refusal({job("a", ""), job("a", "")}), HasSubstr("'a' is there twice"));
  for (const char* name : {"", ".hidden", "-x", "a/b", "a b", "a\n"})
    EXPECT_THAT(refusal({job(name, "")}), HasSubstr("expected a name"));
  LaunchJob same = job("b", "");
  same.folder = folder() / "launch/jobs/a";
  EXPECT_THAT(refusal({job("a", ""), same}), HasSubstr("another job has the folder"));
  LaunchJob empty = job("a", "");
  empty.command.clear();
  EXPECT_THAT(refusal({empty}), HasSubstr("has no command"));
}

TEST_F(LaunchTest, OnlySlurmsJobsOutliveTheCommand) {
  EXPECT_THAT(test::message_of([&] { launch({job("a", "")}, config_, folder() / "launch", {.detach = true}, {}); },
                               ErrorKind::kInvalidArgument),
              HasSubstr("--detach"));
}

TEST_F(LaunchTest, AStateOfAnotherVersionOrADamagedOneIsRefused) {
  run({job("a", "")});
  const fs::path file = folder() / "launch/launch.json";
  const std::string text = test::file_bytes(file);
  test::write_text(file, text.substr(0, text.size() / 2));
  EXPECT_EQ(test::error_of([&] { run({job("a", "")}); }).kind(), ErrorKind::kCorruption);
  Json json = parse_json(text, "launch.json");
  json["format"] = 99;
  test::write_text(file, dump_json(json));
  EXPECT_EQ(test::error_of([&] { run({job("a", "")}); }).kind(), ErrorKind::kUnsupported);
  json["format"] = 1;
  json["jobs"]["a"]["status"] = "asleep";
  test::write_text(file, dump_json(json));
  EXPECT_THAT(test::error_of([&] { run({job("a", "")}); }).message(), HasSubstr("asleep"));
}

// A job in Slurm's queue is not started here as well.
TEST_F(LaunchTest, WhatIsInSlurmsQueueIsNotRunHere) {
  const std::vector<LaunchJob> jobs = resolve_jobs({job("a", "")}, folder() / "launch");
  {
    LaunchState state(folder() / "launch", jobs);
    Submission submission{1, "salient-x.1", "17", {"a"}, {1}};
    state.add_submission(submission);
    state.job("a").status = JobStatus::kSubmitted;
    state.job("a").submission = 1;
    state.save();
  }
  EXPECT_THAT(refusal({job("a", "")}), HasSubstr("array 17"));
  EXPECT_THAT(refusal({job("a", "true")}), HasSubstr("another command"));
}

// ---- the process that runs them is stopped ----

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 400; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  }
  return false;
}

int wait_for_end(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(LaunchTest, ChildrenEndWithTheProcessThatStartedThem) {
  const fs::path pid_file = folder() / "pid";
  const std::vector<LaunchJob> jobs = {
      job("long", "[ -e " + (folder() / "go").string() + " ] && exit 0; echo $$ >" + pid_file.string() + "; exec sleep 60")};
  for (const int number : {SIGKILL, SIGINT, SIGTERM}) {
    fs::remove(pid_file);
    const pid_t follower = start(jobs);
    ASSERT_TRUE(wait_for([&] { return test::file_bytes(pid_file).ends_with("\n"); }));
    const pid_t sleeper = std::stoi(test::file_bytes(pid_file));
    ::kill(follower, number);
    EXPECT_EQ(wait_for_end(follower), number == SIGKILL ? 128 + SIGKILL : number);
    EXPECT_TRUE(wait_for([&] { return ::kill(sleeper, 0) != 0; })) << "signal " << number;
    EXPECT_FALSE(fs::exists(folder() / "launch/jobs/long/try-1/exit_code"));
  }
  test::write_text(folder() / "go", "");
  EXPECT_EQ(run(jobs).outcomes[0].status, JobStatus::kDone);
}

TEST_F(LaunchTest, KilledAtAnyMomentTheSameCallComesToTheSameEnd) {
  std::vector<LaunchJob> jobs;
  for (int i = 0; i < 8; ++i) jobs.push_back(job(fmt::format("job{}", i), "sleep 0.1"));
  for (int kills = 0; kills < 10; ++kills) {
    const pid_t follower = start(jobs);
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + 37 * kills));
    ::kill(follower, SIGKILL);
    wait_for_end(follower);
  }
  for (const JobOutcome& outcome : run(jobs).outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone);
  const std::vector<std::string> all = ran();
  for (const LaunchJob& one : jobs) {
    const auto times = std::ranges::count(all, one.name);
    EXPECT_GE(times, 1);
    EXPECT_LE(times, 11);
  }
  const Json state = parse_json(test::file_bytes(folder() / "launch/launch.json"), "launch.json");
  for (const auto& [name, record] : state.at("jobs").items()) EXPECT_EQ(record.at("status"), "done") << name;
}

// ---- pieces ----

TEST(LaunchParts, AreCutAlikeWhateverWaits) {
  const auto members = [](const std::vector<bool>& waits, int64_t most) {
    std::map<std::string, std::vector<size_t>> parts;
    for (const LaunchPart& part : share_out(waits, most))
      parts[part.name.empty() ? "alone-" + std::to_string(part.members.front()) : part.name] = part.members;
    return parts;
  };
  using Parts = std::map<std::string, std::vector<size_t>>;
  EXPECT_EQ(members({true, true, true, true, true}, 2), (Parts{{"part-1-of-2", {0, 1}}, {"part-2-of-2", {2, 3, 4}}}));
  EXPECT_EQ(members({true, false, false, false, true}, 2), (Parts{{"part-1-of-2", {0}}, {"part-2-of-2", {4}}}));
  EXPECT_EQ(members({true, true, false, false, false}, 2), (Parts{{"part-1-of-2", {0, 1}}}));
  EXPECT_EQ(members({false, true, true}, 0), (Parts{{"alone-1", {1}}, {"alone-2", {2}}}));
  EXPECT_EQ(members({true, true}, 8), (Parts{{"alone-0", {0}}, {"alone-1", {1}}}));
  EXPECT_EQ(members({}, 2), Parts());
}

TEST(ChildProcess, QuotesWordsForTheShell) {
  for (const std::string word : {"plain", "", "two words", "it's", "$HOME", "a\\b", "\"q\"", "*", "ä", "new\nline"}) {
    EXPECT_EQ(run_child({"sh", "-c", "printf %s " + shell_quote(word)}).out, word);
  }
  EXPECT_EQ(shell_command({"salient", "run", "a b"}), "salient run 'a b'");
}

TEST(ChildProcess, GivesBackOutputAndExitCode) {
  const ChildResult result = run_child({"sh", "-c", "echo out; echo err >&2; exit 7"});
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(run_child({"sh", "-c", "kill -9 $$"}).exit_code, 137);
  EXPECT_EQ(test::error_of([] { run_child({"no-such-program-anywhere"}); }).kind(), ErrorKind::kNotFound);
  ::setenv("SALIENT_TEST_A", "1", 1);
  EXPECT_EQ(run_child({"sh", "-c", "echo ${SALIENT_TEST_A-none}"},
                      {.folder = {}, .out_file = {}, .keep_descriptor = -1, .unset = {"SALIENT_TEST_"}})
                .out,
            "none\n");
}

TEST(LaunchProgress, ShowsCountsAndTimeLeft) {
  char* buffer = nullptr;
  size_t size = 0;
  std::FILE* stream = open_memstream(&buffer, &size);
  double time = 0;
  {
    LaunchProgress progress("launch", {.stream = stream, .terminal = true, .width = 200, .now = [&] { return time; }});
    progress.show({.total = 4, .waiting = 1, .running = 2, .done = 1, .failed = 0, .cancelled = 0});
    time = 10;
    progress.show({.total = 4, .waiting = 0, .running = 2, .done = 1, .failed = 1, .cancelled = 0});
    std::fflush(stream);
    EXPECT_THAT(std::string(buffer, size), HasSubstr("50%  2/4 jobs  10s each  left 20s  2 running, 1 failed"));
    time = 30;
    progress.show({.total = 4, .waiting = 0, .running = 0, .done = 3, .failed = 1, .cancelled = 0});
  }
  std::fclose(stream);
  EXPECT_THAT(std::string(buffer, size), HasSubstr("100%  4/4 jobs"));
  std::free(buffer);
}

}  // namespace
}  // namespace salient::pipeline
