#include "pipeline/launcher/launcher_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "pipeline/launcher/slurm_commands.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;

LauncherConfig read(const std::string& text) { return read_launcher(ConfigNode::parse(text, "sweep.yaml").get("launcher")); }

std::string error_of(const std::string& text) {
  return test::message_of([&] { read(text); }, ErrorKind::kInvalidArgument);
}

TEST(LauncherConfig, TheDefaultIsThisMachineOneJobAfterAnother) {
  for (const char* text : {"a: 1", "launcher:", "launcher: local", "launcher: {kind: local}", "launcher: {}"}) {
    const LauncherConfig config = read(text);
    EXPECT_EQ(config.kind, LauncherKind::kLocal);
    EXPECT_EQ(config.max_jobs, 0);
    EXPECT_EQ(config.retries, 2);
  }
  EXPECT_EQ(read("launcher: slurm").kind, LauncherKind::kSlurm);
}

// Every key reaches sbatch, in words of its own.
TEST(LauncherConfig, EveryKeyOfSlurmIsAnOptionOfSbatch) {
  const LauncherConfig config = read(
      "launcher: {kind: slurm, max_jobs: 8, partition: gpu, time: 2:00:00, memory: 16GiB, cpus: 4, gpus: 'a100:2', account: lab, "
      "qos: low,\n"
      "           retries: 5, max_submitted: 100, options: [--exclude=node7, '-C fast']}");
  EXPECT_EQ(config.retries, 5);
  EXPECT_EQ(config.max_submitted, 100);
  SlurmArray array;
  array.job_name = "salient-1.1";
  array.folder = "/shared/launch/submissions/1";
  array.tasks = 20;
  array.at_a_time = config.max_jobs;
  array.after = "17";
  const std::vector<std::string> words = sbatch_command(array, config);
  EXPECT_EQ(words.front(), "sbatch");
  EXPECT_EQ(words.back(), "/shared/launch/submissions/1/array.sh");
  EXPECT_THAT(words, IsSupersetOf({"--parsable", "--job-name=salient-1.1", "--array=0-19%8", "--dependency=afterany:17",
                                   "--partition=gpu", "--time=2:00:00", "--mem=16384M", "--cpus-per-task=4", "--gres=gpu:a100:2",
                                   "--account=lab", "--qos=low", "--exclude=node7", "-C fast"}));
  const std::vector<std::string> bare = sbatch_command({"n", "/f", 1, 0, "", -1}, read("launcher: slurm"));
  EXPECT_THAT(bare, Contains("--array=0-0"));
  for (const std::string& word : bare) {
    EXPECT_THAT(word, AllOf(Not(HasSubstr("--partition")), Not(HasSubstr("--mem")), Not(HasSubstr("--time")),
                            Not(HasSubstr("--gres")), Not(HasSubstr("--dependency"))));
  }
}

TEST(LauncherConfig, TimesAreThoseThatSbatchTakes) {
  for (const char* time : {"90", "10:30", "2:00:00", "1-12", "1-12:30", "1-12:30:15", "infinite"})
    EXPECT_EQ(read(fmt::format("launcher: {{kind: slurm, time: {}}}", time)).time, time);
  for (const char* time : {"2h", "1-", "a:b", "1:2:3:4", "\"\"", "-5"})
    EXPECT_THAT(error_of(fmt::format("launcher: {{kind: slurm, time: {}}}", time)), HasSubstr("time limit")) << time;
}

TEST(LauncherConfig, WhatIsWrongIsSaidWithItsPlace) {
  EXPECT_THAT(error_of("launcher: pbs"), AllOf(HasSubstr("sweep.yaml:1:11"), HasSubstr("'local' or 'slurm'")));
  EXPECT_THAT(error_of("launcher: {kind: slurm, partitoin: x}"), HasSubstr("partition"));
  EXPECT_THAT(error_of("launcher: {partition: gpu}"), HasSubstr("kind: slurm"));
  EXPECT_THAT(error_of("launcher: {kind: slurm, partition: 'a b'}"), HasSubstr("partition"));
  EXPECT_THAT(error_of("launcher: {kind: slurm, account: --uid=0}"), HasSubstr("account"));
  EXPECT_THAT(error_of("launcher: {kind: slurm, memory: lots}"), HasSubstr("16GB"));
  EXPECT_THAT(error_of("launcher: {kind: slurm, gpus: many}"), HasSubstr("TYPE:COUNT"));
  EXPECT_THAT(error_of("launcher: {max_jobs: -1}"), HasSubstr("max_jobs"));
  EXPECT_THAT(error_of("launcher: {kind: slurm, options: [exclude]}"), HasSubstr("--exclude=node7"));
  for (const char* option :
       {"--array=0-3", "-a0-3", "--job-name=x", "-Jx", "-W", "--wait", "--output=x", "--parsable", "--dependency=x"}) {
    EXPECT_THAT(error_of(fmt::format("launcher: {{kind: slurm, options: ['{}']}}", option)), HasSubstr("does not set itself"))
        << option;
  }
}

TEST(LauncherConfig, ACommandLineNamesAKindOrAFile) {
  const test::TemporaryFolder folder;
  const std::string file = (folder.path() / "cluster.yaml").string();
  test::write_text(file, "launcher: {kind: slurm, partition: gpu}\n");
  const LauncherConfig config = load_launcher(file, {"max_jobs=3", "partition=cpu"});
  EXPECT_EQ(config.partition, "cpu");
  EXPECT_EQ(config.max_jobs, 3);
  EXPECT_EQ(load_launcher("slurm", {"memory=2GiB"}).memory_mib, 2048);
  EXPECT_THAT(test::message_of([] { load_launcher("local", {"time=90"}); }, ErrorKind::kInvalidArgument),
              HasSubstr("--set launcher.time=90"));
  EXPECT_THAT(test::message_of([] { load_launcher("slrum"); }, ErrorKind::kNotFound), HasSubstr("'local' or 'slurm'"));
  test::write_text(file, "launcher: slurm\n");
  EXPECT_EQ(load_launcher(file, {"max_jobs=3"}).max_jobs, 3);
  test::write_text(file, "partition: gpu\n");
  EXPECT_THAT(test::message_of([&] { load_launcher(file); }, ErrorKind::kInvalidArgument), HasSubstr("partition"));
}

TEST(SlurmCommands, IdsAndIndicesAsSlurmPrintsThem) {
  EXPECT_EQ(parse_sbatch_output("123\n"), "123");
  EXPECT_EQ(parse_sbatch_output("hello of the site\n123;cluster\n"), "123");
  EXPECT_EQ(parse_sbatch_output("Submitted batch job 7\n"), std::nullopt);
  EXPECT_EQ(parse_sbatch_output(""), std::nullopt);
  EXPECT_THAT(parse_array_indices("7"), ElementsAre(7));
  EXPECT_THAT(parse_array_indices("0-2,5%2"), ElementsAre(0, 1, 2, 5));
  EXPECT_TRUE(parse_array_indices("N/A").empty());
  EXPECT_TRUE(parse_array_indices("1-2-3").empty());
  EXPECT_TRUE(parse_array_indices("").empty());
}

TEST(SlurmCommands, EveryStateHasOneMeaning) {
  EXPECT_EQ(find_slurm_state("TIMEOUT")->meaning, SlurmMeaning::kLost);
  EXPECT_EQ(find_slurm_state("OUT_OF_MEMORY")->meaning, SlurmMeaning::kHopeless);
  EXPECT_EQ(find_slurm_state("PENDING")->meaning, SlurmMeaning::kQueued);
  EXPECT_EQ(find_slurm_state("SOMETHING_NEW"), nullptr);
  std::set<std::string_view> names;
  for (const SlurmState& state : slurm_states()) EXPECT_TRUE(names.insert(state.name).second) << state.name;
}

}  // namespace
}  // namespace salient::pipeline
