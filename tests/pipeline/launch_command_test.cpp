// salient launch from end to end: run configs of the demo model as jobs, here and on a real Slurm, their results in one store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "common/json.h"
#include "pipeline/store.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/slurm.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using pipeline::Store;
using pipeline::StoreMode;
using testing::AllOf;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class LaunchCommand : public testing::Test {
 protected:
  const fs::path& folder() const { return folder_.path(); }

  // A config that takes few seconds: rounding to nearest, forty questions.
  void write_config(const std::string& name, int group_size, const std::string& more = "") const {
    const std::string data = kDemoModel.string() + "/data";
    write_text(folder() / (name + ".yaml"),
               "model: {path: " + kDemoModel.string() +
                   "}\ncalibration: {samples: 8}\nquantization: {method: rtn, format: compressed-tensors, group_size: " +
                   std::to_string(group_size) + "}\nevaluation:\n  tasks: [{name: arc, file: " + data +
                   "/arc_test.jsonl, limit: 40}]\n  throughput: false\n" + more + "output: {folder: artifacts}\n");
  }
  ProgramResult launch(std::vector<std::string> words, const std::function<bool(const std::string&)>& kill_when = {}) const {
    words.insert(words.begin(), "launch");
    return run_program({std::move(words), folder(), {{"OMP_NUM_THREADS", "1"}}, kill_when, std::chrono::seconds(300)});
  }
  std::vector<std::string> names_in(const Store& store) const {
    std::vector<std::string> names;
    for (const pipeline::RunRecord& run : store.list_runs()) names.push_back(run.name + " " + run.status);
    return names;
  }
  // What the store of the launch has of a job is what the job stored.
  void expect_collected(const Store& all, const std::string& job) const {
    const Store own(folder() / "runs/launches/launch/jobs" / job / "salient.db", StoreMode::kExisting);
    const auto results = own.list_results();
    ASSERT_FALSE(results.empty());
    for (const pipeline::ResultRecord& result : results) {
      bool found = false;
      for (const pipeline::ResultRecord& taken : all.list_results({"", result.task, result.metric, std::nullopt, 0})) {
        found = found || (taken.model_path == result.model_path && taken.config == result.config && taken.value == result.value &&
                          taken.n == result.n);
      }
      EXPECT_TRUE(found) << result.model_name << " " << result.metric;
    }
    for (const pipeline::EvaluationRecord& evaluation : own.list_evaluations()) {
      const auto taken = all.list_evaluations({"", evaluation.model_path, std::nullopt, 0});
      ASSERT_FALSE(taken.empty());
      EXPECT_EQ(all.list_documents(taken[0].id).size(), own.list_documents(evaluation.id).size());
    }
    for (const pipeline::ArtifactRecord& artifact : own.list_artifacts())
      EXPECT_EQ(all.list_artifacts({"", artifact.path, 0}).size(), 1u);
  }

  TemporaryFolder folder_;
};

TEST_F(LaunchCommand, RunsConfigsHereAndCollectsTheirResults) {
  write_config("g128", 128);
  const ProgramResult result = launch({"g128.yaml", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out, "out").at("jobs").at(0).at("status"), "done");
  {
    const Store store(folder() / "runs/salient.db", StoreMode::kExisting);
    EXPECT_THAT(names_in(store), UnorderedElementsAre("g128 done"));
    expect_collected(store, "g128");
  }
  // Nothing is done again: the log of the first try is the only one.
  EXPECT_EQ(launch({"g128.yaml"}).exit_code, 0);
  EXPECT_FALSE(fs::exists(folder() / "runs/launches/launch/jobs/g128/try-2"));
  // Another setting is another job.
  EXPECT_EQ(launch({"g128.yaml", "--set", "quantization.bits=8"}).exit_code, 0);
  EXPECT_TRUE(fs::exists(folder() / "runs/launches/launch/jobs/g128/try-2"));
  const Store store(folder() / "runs/salient.db", StoreMode::kExisting);
  EXPECT_EQ(store.list_artifacts().size(), 2u);
}

TEST_F(LaunchCommand, WhatIsWrongWithAConfigIsSaidBeforeAnythingRuns) {
  write_config("good", 128);
  write_text(folder() / "bad.yaml", "model: {path: nowhere}\n");
  const ProgramResult result = launch({"good.yaml", "bad.yaml"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, AllOf(HasSubstr("job bad"), HasSubstr("nowhere")));
  EXPECT_FALSE(fs::exists(folder() / "runs/launches"));
  EXPECT_EQ(launch({}).exit_code, 2);
  EXPECT_EQ(launch({"good.yaml", "--launcher", "pbs"}).exit_code, 3);
  EXPECT_EQ(launch({"good.yaml", "--detach"}).exit_code, 2);
  EXPECT_EQ(launch({"good.yaml", "good.yaml"}).exit_code, 2);
}

// Two jobs that succeed and one whose check fails, as an array of Slurm; the process that follows is killed after submitting.
TEST_F(LaunchCommand, RunsConfigsAsAnArrayOfSlurmAlsoWhenItIsKilled) {
  if (const auto missing = SlurmCluster::missing()) GTEST_SKIP() << *missing;
  const SlurmCluster cluster;
  write_config("g128", 128);
  write_config("g64", 64);
  write_config("strict", -1, "  max_retention_loss: 0\n");  // two bits with one scale a channel: nothing is left of the model
  const std::vector<std::string> words = {"g128.yaml",      "g64.yaml", "strict.yaml", "--launcher",         "slurm",
                                          "--launcher-set", "cpus=1",   "--set",       "quantization.bits=2"};
  const ProgramResult killed =
      launch(words, [](const std::string& err) { return err.find("submitted 3 jobs") != std::string::npos; });
  EXPECT_TRUE(killed.killed) << killed.err;
  const ProgramResult result = launch(words);
  EXPECT_EQ(result.exit_code, 7) << result.out << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("3 of 3 jobs were submitted before"), HasSubstr("job strict: failed, exit code 7")));
  EXPECT_EQ(cluster.arrays_submitted(), 1);
  const Store store(folder() / "runs/salient.db", StoreMode::kExisting);
  EXPECT_THAT(names_in(store), UnorderedElementsAre("g128 done", "g64 done", "strict done"));
  for (const char* job : {"g128", "g64", "strict"}) expect_collected(store, job);
  // Only what is not done is tried again, and its results are those there are.
  const size_t results = store.list_results().size();
  EXPECT_EQ(launch(words).exit_code, 7);
  EXPECT_EQ(cluster.arrays_submitted(), 2);
  EXPECT_FALSE(fs::exists(folder() / "runs/launches/launch/jobs/g128/try-2"));
  EXPECT_EQ(store.list_results().size(), results);
}

}  // namespace
}  // namespace salient::test
