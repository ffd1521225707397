// The launcher against a real Slurm that the test starts: arrays, states, failures, and what happens when the process that follows
// is stopped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "pipeline/launcher/child_process.h"
#include "pipeline/launcher/launch.h"
#include "support/demo_run.h"
#include "support/model_shelf.h"
#include "support/run_program.h"
#include "support/slurm.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

class SlurmLaunch : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!test::SlurmCluster::missing()) cluster() = std::make_unique<test::SlurmCluster>();
  }
  static void TearDownTestSuite() { cluster().reset(); }
  void SetUp() override {
    if (const auto missing = test::SlurmCluster::missing()) GTEST_SKIP() << *missing;
    config_.kind = LauncherKind::kSlurm;
    config_.cpus = 1;
  }
  static std::unique_ptr<test::SlurmCluster>& cluster() {
    static std::unique_ptr<test::SlurmCluster> cluster;
    return cluster;
  }

  const fs::path& folder() const { return folder_.path(); }

  // A job that says in the file `ran` that it runs.
  LaunchJob job(const std::string& name, const std::string& script) const {
    LaunchJob job;
    job.name = name;
    job.command = {"sh", "-c", "echo " + name + " >>" + shell_quote((folder() / "ran").string()) + "\n" + script};
    return job;
  }
  int64_t times_run(const std::string& name) const {
    const std::vector<std::string> lines = split(test::file_bytes(folder() / "ran"), '\n');
    return std::count(lines.begin(), lines.end(), name);
  }
  LaunchResult run(const std::vector<LaunchJob>& jobs, bool detach = false) {
    return launch(jobs, config_, folder() / "launch", {detach},
                  {[this](const std::string& line) { messages_ += line + "\n"; },
                   {},
                   [this](const LaunchJob& done, const JobOutcome&) { finished_ += done.name + " "; }});
  }
  bool wait_for(const std::function<bool()>& condition) const {
    for (int i = 0; i < 600; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }

  TemporaryFolder folder_;
  LauncherConfig config_;
  std::string messages_;
  std::string finished_;
};

// MaxArraySize is 4 here: six jobs are two arrays.
TEST_F(SlurmLaunch, RunsEveryJobOnceInArraysAsLargeAsTheClusterAllows) {
  std::vector<LaunchJob> jobs;
  for (int i = 0; i < 6; ++i) jobs.push_back(job(fmt::format("job{}", i), "echo out; echo $OMP_NUM_THREADS"));
  const int arrays = cluster()->arrays_submitted();
  const LaunchResult result = run(jobs);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(result.outcomes[static_cast<size_t>(i)].status, JobStatus::kDone) << messages_;
    EXPECT_EQ(times_run(jobs[static_cast<size_t>(i)].name), 1);
    EXPECT_EQ(test::file_bytes(result.outcomes[static_cast<size_t>(i)].log), "out\n1\n");
  }
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 2);
  EXPECT_EQ(split(finished_, ' ').size(), 7u) << finished_;
  // Done is done; a job more is the only one that runs.
  jobs.push_back(job("job6", ""));
  EXPECT_EQ(run(jobs).outcomes.back().status, JobStatus::kDone);
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 3);
  EXPECT_EQ(times_run("job0"), 1);
}

TEST_F(SlurmLaunch, TriesAgainWhatFailsAndGivesUpWhereThatIsNoUse) {
  config_.retries = 2;
  const std::string marker = shell_quote((folder() / "marker").string());
  const LaunchResult result = run({job("once", "if [ -e " + marker + " ]; then exit 0; fi; touch " + marker + "; exit 3"),
                                   job("always", "exit 4"), job("invalid", "exit 2")});
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_;
  EXPECT_EQ(result.outcomes[0].tries, 2);
  EXPECT_EQ(result.outcomes[1].status, JobStatus::kFailed);
  EXPECT_EQ(result.outcomes[1].exit_code, 4);
  EXPECT_EQ(times_run("always"), 3);
  EXPECT_EQ(result.outcomes[2].status, JobStatus::kFailed);
  EXPECT_EQ(times_run("invalid"), 1);
  EXPECT_THAT(messages_, HasSubstr("job once: exit code 3; try 2 of 3 follows"));
}

TEST_F(SlurmLaunch, AJobThatSomebodyCancelsIsNotTriedAgainUntilItIsAskedForAgain) {
  const fs::path go = folder() / "go";
  const std::vector<LaunchJob> jobs = {job("long", "if [ -e " + shell_quote(go.string()) + " ]; then exit 0; fi; sleep 100"),
                                       job("short", "")};
  std::thread canceller([&] {
    wait_for([&] { return times_run("long") == 1; });
    for (const std::string& line : split(cluster()->queue(), '\n')) {
      if (line.find("RUNNING") != std::string::npos && line.find("_0 ") != std::string::npos)
        cluster()->call({"scancel", line.substr(0, line.find(' '))});
    }
  });
  const LaunchResult result = run(jobs);
  canceller.join();
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kCancelled) << messages_;
  EXPECT_THAT(result.outcomes[0].reason, HasSubstr("CANCELLED"));
  EXPECT_EQ(result.outcomes[1].status, JobStatus::kDone);
  test::write_text(go, "");
  EXPECT_EQ(run(jobs).outcomes[0].status, JobStatus::kDone);
  EXPECT_EQ(times_run("long"), 2);
  EXPECT_EQ(times_run("short"), 1);
}

// Slurm puts what ran on a lost machine back into the queue: the same try begins anew, and no retry is used up.
TEST_F(SlurmLaunch, AJobOnALostMachineRunsAgain) {
  config_.retries = 0;
  const std::string marker = shell_quote((folder() / "marker").string());
  std::thread loser([&] {
    wait_for([&] { return times_run("survivor") == 1; });
    cluster()->lose_node();
    std::this_thread::sleep_for(std::chrono::seconds(2));
    test::write_text(folder() / "marker", "");
    cluster()->return_node();
  });
  const LaunchResult result = run({job("survivor", "if [ -e " + marker + " ]; then exit 0; fi; sleep 100")});
  loser.join();
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_ << result.outcomes[0].reason;
  EXPECT_EQ(result.outcomes[0].tries, 1);
  EXPECT_EQ(times_run("survivor"), 2);
}

// Where Slurm may not requeue, the launcher submits again.
TEST_F(SlurmLaunch, AJobThatIsLostForGoodIsSubmittedAgain) {
  config_.retries = 1;
  config_.options = {"--no-requeue"};
  const std::string marker = shell_quote((folder() / "marker").string());
  std::thread loser([&] {
    wait_for([&] { return times_run("lost") == 1; });
    test::write_text(folder() / "marker", "");
    cluster()->lose_node();
    std::this_thread::sleep_for(std::chrono::seconds(2));
    cluster()->return_node();
  });
  const LaunchResult result = run({job("lost", "if [ -e " + marker + " ]; then exit 0; fi; sleep 100")});
  loser.join();
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_ << result.outcomes[0].reason;
  EXPECT_EQ(result.outcomes[0].tries, 2);
  EXPECT_THAT(messages_, HasSubstr("NODE_FAIL"));
}

// Takes more than a minute, which is the shortest limit that Slurm has.
TEST_F(SlurmLaunch, AJobAtItsTimeLimitGoesOnInAnotherTry) {
  config_.retries = 1;
  config_.time = "1";
  const std::string marker = shell_quote((folder() / "marker").string());
  const LaunchResult result = run({job("slow", "if [ -e " + marker + " ]; then exit 0; fi; touch " + marker + "; sleep 300")});
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_ << result.outcomes[0].reason;
  EXPECT_EQ(result.outcomes[0].tries, 2);
  EXPECT_THAT(messages_, HasSubstr("TIMEOUT"));
}

TEST_F(SlurmLaunch, NoMoreRunAtATimeThanAskedFor) {
  config_.max_jobs = 2;
  const std::string at_work = shell_quote((folder() / "at_work").string());
  const std::string seen = shell_quote((folder() / "seen").string());
  std::vector<LaunchJob> jobs;  // two arrays, the second after the first
  for (int i = 0; i < 6; ++i)
    jobs.push_back(job(fmt::format("job{}", i),
                       fmt::format("mkdir -p {0}; touch {0}/{2}; sleep 1; ls {0} | wc -l >>{1}; rm {0}/{2}", at_work, seen, i)));
  const LaunchResult result = run(jobs);
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone) << outcome.reason;
  int64_t most = 0;
  for (const std::string& line : split(test::file_bytes(folder() / "seen"), '\n')) {
    if (!line.empty()) most = std::max<int64_t>(most, std::stoll(line));
  }
  EXPECT_EQ(most, 2);
}

TEST_F(SlurmLaunch, NoMoreStandInTheQueueThanAllowed) {
  config_.max_submitted = 2;
  std::atomic<int64_t> most{0};
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over) {
      const std::string queue = cluster()->queue();
      most = std::max<int64_t>(most, std::count(queue.begin(), queue.end(), '\n'));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  });
  std::vector<LaunchJob> jobs;
  for (int i = 0; i < 5; ++i) jobs.push_back(job(fmt::format("job{}", i), "sleep 1"));
  const LaunchResult result = run(jobs);
  over = true;
  watcher.join();
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone) << outcome.reason;
  EXPECT_LE(most, 2);
  EXPECT_GE(most, 1);
}

TEST_F(SlurmLaunch, DetachedJobsRunOnAndAreCollectedByTheNextCall) {
  const std::vector<LaunchJob> jobs = {job("a", "sleep 1"), job("b", "sleep 1; exit 5")};
  const int arrays = cluster()->arrays_submitted();
  EXPECT_EQ(run(jobs, true).outcomes[0].status, JobStatus::kSubmitted);
  EXPECT_EQ(finished_, "");
  EXPECT_TRUE(wait_for([&] { return cluster()->queue().empty(); }));
  const LaunchResult result = run(jobs);
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone);
  EXPECT_EQ(result.outcomes[1].status, JobStatus::kFailed);
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 1);
  EXPECT_EQ(times_run("a"), 1);
  EXPECT_THAT(finished_, AllOf(HasSubstr("a "), HasSubstr("b ")));
}

// The commands whose work can be shared out, as a user gives them.
TEST_F(SlurmLaunch, ModelsAndPointsAreJobsOfACluster) {
  const std::string data = (test::kDemoModel / "data").string();
  test::put_demo(folder() / "Models/one");
  const std::string config = test::file_bytes(test::put_demo(folder() / "Models/two") / "config.json");
  test::write_text(folder() / "Models/two/config.json", config + "\n");  // no copy of the other
  const std::vector<std::string> slurm = {"--launcher", "slurm", "--launcher-set", "cpus=1"};
  std::vector<std::string> words = {"evaluate-all", "Models", "--tasks", "arc", "--data", "arc=" + data + "/arc_test.jsonl",
                                    "--limit",      "4",      "--json"};
  words.insert(words.end(), slurm.begin(), slurm.end());
  const int arrays = cluster()->arrays_submitted();
  const test::ProgramResult batch = test::run_program({words, folder(), {}, {}, std::chrono::seconds(200)});
  ASSERT_EQ(batch.exit_code, 0) << batch.err;
  const Json report = parse_json(batch.out, "evaluate-all --json");
  EXPECT_EQ(report.at("counts").at("done"), 2) << batch.out;
  EXPECT_EQ(report.at("ranking").size(), 2u);
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 1);

  test::write_text(folder() / "run.yaml", "model: {path: " + test::kDemoModel.string() +
                                              "}\nquantization: {n_grid: 2, propagate_error: false}\n"
                                              "evaluation: {tasks: [{name: arc, file: " +
                                              data + "/arc_test.jsonl, limit: 4}], throughput: false}\n");
  test::write_text(folder() / "sweep.yaml",
                   "run: run.yaml\ngrid: {quantization.group_size: [64, 128]}\nset: {calibration.samples: 12}\n"
                   "launcher: {kind: slurm, cpus: 1}\n");
  const test::ProgramResult sweep =
      test::run_program({{"sweep", "sweep.yaml", "--json"}, folder(), {}, {}, std::chrono::seconds(300)});
  ASSERT_EQ(sweep.exit_code, 0) << sweep.err;
  const Json points = parse_json(sweep.out, "sweep --json");
  EXPECT_EQ(points.at("shared"), 0) << "this process quantized nothing";
  ASSERT_EQ(points.at("points").size(), 2u);
  for (const Json& point : points.at("points")) EXPECT_GT(point.at("bytes"), 1'000'000);
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 2);
}

TEST_F(SlurmLaunch, GoesOnWhenTheControllerIsAwayForAWhile) {
  LaunchResult result;
  std::thread follower([&] { result = run({job("patient", "sleep 2")}); });
  EXPECT_TRUE(wait_for([&] { return times_run("patient") == 1; }));
  cluster()->stop_controller();
  std::this_thread::sleep_for(std::chrono::seconds(3));
  cluster()->start_controller();
  follower.join();
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_ << result.outcomes[0].reason;
  EXPECT_EQ(times_run("patient"), 1);
}

TEST_F(SlurmLaunch, WhatSbatchRefusesIsSaidWithItsWordsAndAWayOut) {
  config_.partition = "nowhere";
  const Error error = test::error_of([&] { run({job("a", "")}); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("sbatch refuses 1 jobs"), HasSubstr("invalid partition"), HasSubstr("--partition=nowhere")));
  EXPECT_THAT(error.hint(), HasSubstr("launcher.partition"));
  EXPECT_EQ(error.code(), "SLURM_REFUSED");
  config_.partition = "main";  // nothing of it is left over
  EXPECT_EQ(run({job("a", "")}).outcomes[0].status, JobStatus::kDone);
  config_.gpus = "1";
  EXPECT_THAT(test::message_of([&] { run({job("b", "")}); }, ErrorKind::kInvalidArgument), HasSubstr("launcher.gpus"));
}

TEST_F(SlurmLaunch, WithoutSlurmsProgramsTheErrorSaysSo) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", folder().c_str(), 1);
  const Error error = test::error_of([&] { run({job("a", "")}); }, ErrorKind::kNotFound);
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(error.code(), "SLURM_MISSING");
  EXPECT_THAT(error.hint(), HasSubstr("launcher: local"));
}

// ---- stopping the process that follows ----

// launch() in a process of its own, which can be killed; sh jobs as above.
class Follower {
 public:
  template <typename Body>
  explicit Follower(Body&& body) {
    child_ = ::fork();
    if (child_ == 0) {
      int code = 1;
      try {
        code = body();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "follower: %s\n", error.what());
      }
      ::_exit(code);
    }
  }
  ~Follower() {
    if (child_ > 0) signal(SIGKILL), wait();
  }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;
  void signal(int number) const { ::kill(child_, number); }
  int wait() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t child_;
};

TEST_F(SlurmLaunch, KilledWhileItFollowsTheNextCallGoesOnWithoutSubmittingAgain) {
  const std::vector<LaunchJob> jobs = {job("a", "sleep 3"), job("b", "sleep 4"), job("c", "sleep 3; exit 5")};
  const int arrays = cluster()->arrays_submitted();
  for (int i = 0; i < 3; ++i) {
    Follower follower([&] { return run(jobs).signal; });
    ASSERT_TRUE(wait_for([&] { return times_run("a") == 1 && times_run("c") == 1; }));
    follower.signal(SIGKILL);
    EXPECT_EQ(follower.wait(), 128 + SIGKILL);
  }
  const LaunchResult result = run(jobs);
  EXPECT_EQ(result.outcomes[0].status, JobStatus::kDone) << messages_;
  EXPECT_EQ(result.outcomes[1].status, JobStatus::kDone);
  EXPECT_EQ(result.outcomes[2].status, JobStatus::kFailed);
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 1);
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(times_run(name), 1) << name;
  EXPECT_THAT(messages_, HasSubstr("3 of 3 jobs were submitted before"));
}

// An sbatch that stops at a place of the test's choice, around the real one.
class SlowSbatch {
 public:
  SlowSbatch(const fs::path& folder, const std::string& script) : path_(std::getenv("PATH")) {
    std::string real;
    for (const std::string& part : split(path_, ':')) {
      if (real.empty() && fs::exists(fs::path(part) / "sbatch")) real = (fs::path(part) / "sbatch").string();
    }
    fs::create_directories(folder);
    test::write_text(folder / "sbatch", "#!/bin/sh\nreal=" + real + "\n" + script);
    fs::permissions(folder / "sbatch", fs::perms::owner_all);
    ::setenv("PATH", (folder.string() + ":" + path_).c_str(), 1);
  }
  ~SlowSbatch() { ::setenv("PATH", path_.c_str(), 1); }
  SlowSbatch(const SlowSbatch&) = delete;
  SlowSbatch& operator=(const SlowSbatch&) = delete;

 private:
  std::string path_;
};

struct SubmitKill {
  const char* name;
  const char* script;  // `$real "$@"` is sbatch; PPID the launcher
};
class SlurmSubmitKill : public SlurmLaunch, public testing::WithParamInterface<SubmitKill> {};

TEST_P(SlurmSubmitKill, NothingIsSubmittedTwice) {
  const std::vector<LaunchJob> jobs = {job("a", ""), job("b", "")};
  const int arrays = cluster()->arrays_submitted();
  {
    const SlowSbatch sbatch(folder() / "bin", GetParam().script);
    Follower follower([&] { return run(jobs).signal; });
    EXPECT_EQ(follower.wait(), 128 + SIGKILL);
  }
  const LaunchResult result = run(jobs);
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone) << outcome.reason << messages_;
  EXPECT_EQ(cluster()->arrays_submitted() - arrays, 1);
  EXPECT_EQ(times_run("a"), 1);
  EXPECT_EQ(times_run("b"), 1);
}
INSTANTIATE_TEST_SUITE_P(Moments, SlurmSubmitKill,
                         testing::Values(SubmitKill{"BeforeSbatchSpeaks", "kill -9 $PPID; exit 1\n"},
                                         SubmitKill{"WhileSbatchIsUnderWay", "kill -9 $PPID; sleep 2; exec $real \"$@\"\n"},
                                         SubmitKill{"AfterItWasTaken", "$real \"$@\"; kill -9 $PPID\n"},
                                         SubmitKill{"BeforeTheIdWasWritten", "$real \"$@\" >/dev/null; kill -9 $PPID\n"}),
                         [](const auto& values) { return values.param.name; });

TEST_F(SlurmLaunch, AnInterruptCancelsEverythingAndTheSameCallBeginsAgain) {
  const fs::path go = folder() / "go";
  const std::string unless = "if [ -e " + shell_quote(go.string()) + " ]; then exit 0; fi; ";
  const std::vector<LaunchJob> jobs = {job("a", unless + "sleep 100"), job("b", unless + "sleep 100"), job("quick", "")};
  for (const int number : {SIGINT, SIGTERM}) {
    const int64_t before = times_run("a");
    Follower follower([&] { return run(jobs).signal; });
    ASSERT_TRUE(
        wait_for([&] { return times_run("a") == before + 1 && fs::exists(folder() / "launch/jobs/quick/try-1/exit_code"); }));
    EXPECT_NE(cluster()->queue(), "");
    follower.signal(number);
    EXPECT_EQ(follower.wait(), number);
    EXPECT_EQ(cluster()->queue(), "");
  }
  test::write_text(go, "");
  const LaunchResult result = run(jobs);
  for (const JobOutcome& outcome : result.outcomes) EXPECT_EQ(outcome.status, JobStatus::kDone) << outcome.reason;
  EXPECT_EQ(times_run("quick"), 1);
}

TEST_F(SlurmLaunch, OneProcessFollowsALaunch) {
  const std::vector<LaunchJob> jobs = {job("a", "sleep 2")};
  Follower follower([&] { return run(jobs).signal; });
  ASSERT_TRUE(wait_for([&] { return times_run("a") == 1; }));
  EXPECT_THAT(test::message_of([&] { run(jobs); }, ErrorKind::kInvalidArgument), HasSubstr("another process follows this launch"));
  EXPECT_EQ(follower.wait(), 0);
}

}  // namespace
}  // namespace salient::pipeline
