// A run that is killed, at any of several points, and started again until it is done must leave what an undisturbed run leaves,
// byte for byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using KillWhen = std::function<bool(const std::string& err)>;

// -1: no progress is written yet. The file is replaced by a rename, so what is read is whole.
int64_t blocks_done(const fs::path& partial) {
  const std::string text = file_bytes(partial / "progress.json");
  return text.empty() ? -1 : parse_json(text, "progress.json").at("blocks_done").get<int64_t>();
}

KillWhen at_block(const fs::path& output, int64_t block) {
  return [partial = fs::path(output.string() + ".partial"), block](const std::string&) { return blocks_done(partial) == block; };
}
KillWhen when_there(const fs::path& path) {
  return [path](const std::string&) { return fs::exists(path); };
}
KillWhen when_said(const std::string& line) {
  return [line](const std::string& err) { return err.find(line) != std::string::npos; };
}

void expect_same_files(const fs::path& folder, const fs::path& expected_folder) {
  const auto expected = folder_bytes(expected_folder);
  const auto found = folder_bytes(folder);
  ASSERT_EQ(names_of(found), names_of(expected));
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
}

void expect_no_work_left(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    EXPECT_THAT(name, Not(HasSubstr(".partial")));
    EXPECT_FALSE(name.starts_with(".") && entry.is_regular_file()) << entry.path();
  }
}

Json runs_of(const fs::path& folder) { return parse_json(run_program({"runs", "--json"}, folder).out, "runs --json"); }

int64_t count_status(const Json& runs, const std::string& status) {
  return std::count_if(runs.begin(), runs.end(), [&](const Json& run) { return run.at("status") == status; });
}

// The run that nobody disturbed, made once.
const fs::path& undisturbed() {
  static const TemporaryFolder folder;
  static const bool made = [] {
    write_demo_config(folder.path());
    const ProgramResult result = run_program({"run", "run.yaml"}, folder.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return true;
  }();
  static_cast<void>(made);
  return folder.path();
}

struct KillPoint {
  const char* name;
  std::function<KillWhen(const fs::path& artifact)> when;
};

const std::vector<KillPoint> kKillPoints = {
    {"at the start", [](const fs::path&) { return after(std::chrono::milliseconds(50)); }},
    {"when calibration starts", [](const fs::path&) { return when_said("stage calibrate: "); }},
    {"when quantization starts", [](const fs::path&) { return when_said("stage quantize: "); }},
    {"before the first block", [](const fs::path& artifact) { return at_block(artifact, 0); }},
    {"after block 1", [](const fs::path& artifact) { return at_block(artifact, 1); }},
    {"after block 2", [](const fs::path& artifact) { return at_block(artifact, 2); }},
    {"after block 3", [](const fs::path& artifact) { return at_block(artifact, 3); }},
    {"while the last files are written",
     [](const fs::path& artifact) { return when_there(artifact.string() + ".partial/tokenizer.json"); }},
    {"right after the artifact got its name", [](const fs::path& artifact) { return when_there(artifact); }},
    {"in the first evaluation", [](const fs::path&) { return when_said("stage evaluate:perplexity: "); }},
    {"in the second evaluation", [](const fs::path&) { return when_said("stage evaluate:arc: "); }},
};

void expect_like_undisturbed(const fs::path& folder) {
  expect_same_files(folder / "artifacts", undisturbed() / "artifacts");  // the artifact and the calibration file and its record
  EXPECT_TRUE(fs::exists(folder / "artifacts" / kDemoArtifact / "model.safetensors.index.json"));
  expect_no_work_left(folder);
  const auto results = [](const fs::path& where) {
    std::map<std::string, double> values;
    for (const Json& row : parse_json(run_program({"results", "--json"}, where).out, "results")) {
      values[row.at("model").get<std::string>() + " " + row.at("task").get<std::string>() + " " +
             row.at("metric").get<std::string>()] = row.at("value").get<double>();
    }
    return values;
  };
  EXPECT_EQ(results(folder), results(undisturbed()));
}

TEST(KillAndResume, RunKilledAtEveryPointInTurnEndsLikeAnUndisturbedOne) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const fs::path artifact = folder.path() / "artifacts" / kDemoArtifact;
  int64_t recorded = 0;  // runs that had been entered into the store before they were killed
  for (const KillPoint& point : kKillPoints) {
    SCOPED_TRACE(point.name);
    const ProgramResult result = run_program(ProgramCall{{"run", "run.yaml"}, folder.path(), {}, point.when(artifact)});
    ASSERT_TRUE(result.killed) << "ended with " << result.exit_code << " before it could be killed\n" << result.err;
    recorded += result.err.find("stage ") != std::string::npos;
  }
  EXPECT_GE(recorded, 9);

  const ProgramResult last = run_program({"run", "run.yaml", "--json"}, folder.path());
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_THAT(last.err, HasSubstr("stage quantize: up to date"));
  expect_like_undisturbed(folder.path());

  const Json runs = runs_of(folder.path());
  EXPECT_EQ(count_status(runs, "done"), 1);
  EXPECT_GE(count_status(runs, "interrupted"), recorded);
  EXPECT_EQ(count_status(runs, "running"), 0);
  EXPECT_EQ(count_status(runs, "failed"), 0);
  EXPECT_EQ(runs.front().at("status"), "done");  // the newest comes first
}

// The points one by one: what a single kill leaves, and that the work done before it is not done again.
TEST(KillAndResume, RunGoesOnAtTheBlockWhereItWas) {
  for (const int64_t block : {1, 2, 3}) {
    SCOPED_TRACE(block);
    const TemporaryFolder folder;
    write_demo_config(folder.path());
    const fs::path artifact = folder.path() / "artifacts" / kDemoArtifact;
    const ProgramResult killed = run_program(ProgramCall{{"run", "run.yaml"}, folder.path(), {}, at_block(artifact, block)});
    ASSERT_TRUE(killed.killed) << killed.err;
    EXPECT_FALSE(fs::exists(artifact));
    EXPECT_GE(blocks_done(artifact.string() + ".partial"), block);

    const ProgramResult resumed = run_program({"run", "run.yaml"}, folder.path());
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_THAT(resumed.err, HasSubstr("stage calibrate: up to date"));
    EXPECT_THAT(resumed.err, HasSubstr("going on at block"));
    expect_like_undisturbed(folder.path());
  }
}

TEST(KillAndResume, FinishedRunDoesNothingWhenStartedAgain) {
  const fs::path artifact = undisturbed() / "artifacts" / kDemoArtifact;
  std::map<std::string, fs::file_time_type> times;
  for (const auto& entry : fs::directory_iterator(artifact)) times[entry.path().filename().string()] = entry.last_write_time();
  const auto folder_time = fs::last_write_time(artifact);

  const ProgramResult again = run_program({"run", "run.yaml", "--json"}, undisturbed());
  ASSERT_EQ(again.exit_code, 0) << again.err;
  const Json report = parse_json(again.out, "run --json");
  EXPECT_EQ(report.at("stages_run"), 0);
  EXPECT_EQ(report.at("stages_skipped"), 5);
  EXPECT_EQ(fs::last_write_time(artifact), folder_time);
  for (const auto& [name, time] : times) EXPECT_EQ(fs::last_write_time(artifact / name), time) << name;
}

// A file of the artifact that was lost or changed behind the store's back is noticed, and what is made again has the same bytes.
TEST(KillAndResume, DamagedArtifactIsMadeAgain) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  ASSERT_EQ(run_program({"run", "run.yaml", "--set", "evaluation.tasks=[]"}, folder.path()).exit_code, 0);
  fs::copy(folder.path() / "artifacts", folder.path() / "before", fs::copy_options::recursive);
  fs::remove_all(folder.path() / "artifacts" / kDemoArtifact);
  const ProgramResult result = run_program({"run", "run.yaml", "--set", "evaluation.tasks=[]"}, folder.path());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("is missing"));
  expect_same_files(folder.path() / "artifacts", folder.path() / "before");
}

// What a run measured stands in the artifact's card, and the artifact is still what it was.
TEST(KillAndResume, FiguresStandInTheCard) {
  const fs::path artifact = undisturbed() / "artifacts" / kDemoArtifact;
  const std::string card = file_bytes(artifact / "README.md");
  EXPECT_THAT(card, testing::AllOf(HasSubstr("\nmodel-index: [{"), HasSubstr("| perplexity | perplexity | "),
                                   HasSubstr("| arc | acc | "), HasSubstr("heldout.txt"), Not(HasSubstr("Not measured"))));
  const Json metadata = parse_json(file_bytes(artifact / "quantization_metadata.json"), "metadata");
  EXPECT_GT(metadata.at("evaluation").size(), 4u);
  EXPECT_THAT(dump_json(metadata.at("evaluation")), Not(HasSubstr(SALIENT_SOURCE_DIR)));
}

TEST(KillAndResume, QuantizeCommandGoesOnWhenGivenAgain) {
  const TemporaryFolder folder;
  write_calibration(folder.path());
  const auto command = [](const std::string& out) {
    return std::vector<std::string>{"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl",
                                    "--out",    out,       "--n-grid",          "4",       "--max-shard-size",
                                    "1MB",      "--json"};
  };
  const ProgramResult whole = run_program(command("whole"), folder.path());
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_EQ(parse_json(whole.out, "quantize --json").at("resumed_blocks"), 0);

  const fs::path output = folder.path() / "killed";
  for (const int64_t block : {0, 1, 3}) {
    const ProgramResult killed = run_program(ProgramCall{command("killed"), folder.path(), {}, at_block(output, block)});
    ASSERT_TRUE(killed.killed) << killed.err;
    EXPECT_FALSE(fs::exists(output));
  }
  const ProgramResult resumed = run_program(command("killed"), folder.path());
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_GE(parse_json(resumed.out, "quantize --json").at("resumed_blocks"), 3);
  expect_same_files(output, folder.path() / "whole");
  expect_no_work_left(folder.path());
}

}  // namespace
}  // namespace salient::test
