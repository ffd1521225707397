#include "pipeline/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// calibrate -> quantize (a folder) -> evaluate (values only), each counting its calls in a file.
class StageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_ / "model");
    write_file(root_ / "model/config.json", "{}");
    write_file(root_ / "train.jsonl", "rows");
    options_.on_message = [this](const std::string& line) { messages_.push_back(line); };
  }

  std::vector<Stage> stages() {
    Stage calibrate{
        .name = "calibrate", .settings = {{"seed", seed_}}, .input_files = {{"train", root_ / "train.jsonl"}}, .body = {}};
    calibrate.body = [this](StageContext&) {
      count("calibrate");
      write_file(root_ / "calib.jsonl", read_text_file(root_ / "train.jsonl") + std::to_string(seed_));
      return StageOutputs{.paths = {{"texts", root_ / "calib.jsonl"}}, .values = {{"tokens", 12}}, .message = "12 tokens"};
    };
    Stage quantize{.name = "quantize",
                   .after = {"calibrate"},
                   .settings = {{"bits", bits_}},
                   .input_files = {{"model", root_ / "model"}},
                   .body = {}};
    quantize.body = [this](StageContext& context) {
      count("quantize");
      const fs::path work = context.work_folder();
      for (int block = 0; block < 3; ++block) {  // goes on at the first block that is not there
        const fs::path file = work / std::to_string(block);
        if (fs::exists(file)) continue;
        count("block");
        write_file(file, fmt::format("block {} ", block));
        if (block == kill_at_block_) ::raise(SIGKILL);
        if (block == cancel_at_block_) cancellation_.request();
        check_cancelled();
      }
      std::string bytes = read_text_file(context.output("calibrate", "texts")) + "\n";
      for (int block = 0; block < 3; ++block) bytes += read_text_file(work / std::to_string(block));
      write_file(root_ / "artifact/sub/model.bin", bytes);
      write_file(root_ / "artifact/config.json", "{}");
      if (kill_at_block_ == 3) ::raise(SIGKILL);
      if (throw_) fail(ErrorKind::kCorruption, "layer 3 has NaN weights");
      write_file(root_ / "artifact/README.md", "made");
      return StageOutputs{.paths = {{"artifact", root_ / "artifact"}}, .open = {"README.md"}};
    };
    Stage evaluate{.name = "evaluate", .after = {"quantize"}, .body = {}};
    evaluate.body = [this](StageContext& context) {
      count("evaluate");
      const bool has_artifact = fs::exists(context.output("quantize", "artifact") / "config.json");
      return StageOutputs{.values = {{"tokens", context.value("calibrate", "tokens")}, {"ok", has_artifact}}};
    };
    return {calibrate, quantize, evaluate};
  }

  RunOutcome run() {
    Store store(store_);
    return run_stages(store, "demo", Json::object(), stages(), options_);
  }
  std::vector<PlannedStage> plan() {
    Store store(store_);
    return plan_stages(store, "demo", stages(), options_);
  }
  std::vector<std::string> reasons() {
    std::vector<std::string> texts;
    for (const PlannedStage& stage : plan()) texts.push_back(stage.reason);
    return texts;
  }

  void count(const std::string& name) {
    std::FILE* file = std::fopen((root_ / ("count_" + name)).c_str(), "a");
    std::fputc('.', file);
    std::fclose(file);
  }
  size_t calls(const std::string& name) {
    const fs::path file = root_ / ("count_" + name);
    return fs::exists(file) ? fs::file_size(file) : 0;
  }

  test::TemporaryFolder folder_;
  fs::path root_ = folder_.path();
  fs::path store_ = root_ / "runs/salient.db";
  StageOptions options_;
  std::vector<std::string> messages_;
  int seed_ = 42;
  int bits_ = 4;
  int kill_at_block_ = -1;
  int cancel_at_block_ = -1;
  CancellationToken cancellation_;
  bool throw_ = false;
};

// Such as a card, to which what was measured is added.
TEST_F(StageTest, OpenFilesMayChangeButMustBeThere) {
  run();
  write_file(root_ / "artifact/README.md", "made, and measured");
  EXPECT_THAT(reasons(), ElementsAre("up to date", "up to date", "up to date"));
  fs::remove(root_ / "artifact/README.md");
  EXPECT_THAT(reasons()[1], HasSubstr("is missing"));
  write_file(root_ / "artifact/README.md", "");
  write_file(root_ / "artifact/config.json", "{1}");
  EXPECT_THAT(reasons()[1], HasSubstr("was changed"));
}

TEST_F(StageTest, RunsOnceThenSkips) {
  const RunOutcome first = run();
  EXPECT_EQ(first.stages_run, 3);
  EXPECT_EQ(first.outputs.at("evaluate").values, Json({{"tokens", 12}, {"ok", true}}));
  EXPECT_FALSE(fs::exists(root_ / "runs/work/quantize-" / fs::path(plan()[1].key.substr(0, 16))));

  messages_.clear();
  const RunOutcome second = run();
  EXPECT_EQ(second.stages_run, 0);
  EXPECT_EQ(second.stages_skipped, 3);
  EXPECT_EQ(second.outputs.at("evaluate").values, first.outputs.at("evaluate").values);
  EXPECT_EQ(second.outputs.at("quantize").paths, first.outputs.at("quantize").paths);
  EXPECT_THAT(messages_, ElementsAre("stage calibrate: up to date", "stage quantize: up to date", "stage evaluate: up to date"));
  for (const char* name : {"calibrate", "quantize", "evaluate"}) EXPECT_EQ(calls(name), 1u) << name;

  const Store store(store_);
  EXPECT_EQ(store.list_stages(first.run_id).at(0).message, "12 tokens");
  EXPECT_EQ(store.list_stages(second.run_id).at(0).status, "up_to_date");
  EXPECT_EQ(store.list_stages(second.run_id).at(0).message, "up to date since run 1");
  EXPECT_EQ(store.find_run(second.run_id)->status, "done");
}

TEST_F(StageTest, AChangedSettingRunsWhatStandsOnIt) {
  run();
  bits_ = 3;
  EXPECT_THAT(reasons(), ElementsAre("up to date", "settings.bits changed: 4 -> 3", "'quantize' changed"));
  EXPECT_EQ(run().stages_run, 2);
  EXPECT_THAT(reasons(), ElementsAre("up to date", "up to date", "up to date"));
  EXPECT_EQ(calls("calibrate"), 1u);
}

TEST_F(StageTest, AChangedInputFileRunsItAgain) {
  run();
  write_file(root_ / "train.jsonl", "ROWS");  // same size
  EXPECT_THAT(reasons().at(0), HasSubstr("files.train changed: "));
  write_file(root_ / "train.jsonl", "rows");
  EXPECT_THAT(reasons(), ElementsAre("up to date", "up to date", "up to date"));
  write_file(root_ / "model/tokenizer.json", "{}");
  EXPECT_THAT(reasons().at(1), HasSubstr("files.model.tokenizer.json is new"));
  options_.version = "9.9";
  EXPECT_THAT(reasons().at(0), HasSubstr("version changed: 0.1.0 -> 9.9"));
  fs::remove(root_ / "train.jsonl");
  EXPECT_THROW(plan(), Error);
}

TEST_F(StageTest, MissingOrChangedOutputsAreMadeAgain) {
  run();
  fs::remove(root_ / "artifact/sub/model.bin");
  EXPECT_THAT(reasons().at(1), HasSubstr("output 'artifact' is missing: "));
  EXPECT_EQ(run().stages_run, 1);
  EXPECT_EQ(read_text_file(root_ / "artifact/sub/model.bin"), "rows42\nblock 0 block 1 block 2 ");
  write_file(root_ / "calib.jsonl", "rows43");  // same size, other content
  EXPECT_THAT(reasons().at(0), HasSubstr("output 'texts' was changed: "));
  EXPECT_EQ(run().stages_run, 1);
  EXPECT_EQ(read_text_file(root_ / "calib.jsonl"), "rows42");
}

TEST_F(StageTest, APlanChangesNothing) {
  EXPECT_THAT(reasons(), ElementsAre("never done", "never done", "never done"));
  EXPECT_EQ(calls("calibrate"), 0u);
  EXPECT_TRUE(Store(store_).list_runs().empty());
}

TEST_F(StageTest, AFailureIsRecordedAndThrownAgain) {
  throw_ = true;
  try {
    run();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
    EXPECT_EQ(error.message(), "stage quantize: layer 3 has NaN weights");
  }
  {
    const Store store(store_);
    EXPECT_EQ(store.find_run(1)->status, "failed");
    EXPECT_EQ(store.find_run(1)->error, "stage quantize: layer 3 has NaN weights");
    const auto recorded = store.list_stages(1);
    ASSERT_EQ(recorded.size(), 2u);
    EXPECT_EQ(recorded[1].status, "failed");
    EXPECT_EQ(recorded[1].message, "layer 3 has NaN weights");
  }
  throw_ = false;
  EXPECT_EQ(run().stages_run, 2);  // calibrate is kept
}

// Killed at each block and between the last write and the record: the next run goes on and gives the same bytes.
TEST_F(StageTest, AKilledRunGoesOnWhereItWas) {
  for (int kill_at = 0; kill_at <= 3; ++kill_at) {
    SCOPED_TRACE(kill_at);
    for (const char* name : {"runs", "artifact", "calib.jsonl", "count_block", "count_calibrate"}) fs::remove_all(root_ / name);
    const pid_t child = ::fork();
    if (child == 0) {
      kill_at_block_ = kill_at;
      run();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(Store(store_).find_run(1)->status, "interrupted");
    EXPECT_EQ(reasons().at(1), "was interrupted, goes on");
    EXPECT_EQ(run().stages_run, 2);
    EXPECT_EQ(calls("calibrate"), 1u);
    EXPECT_EQ(calls("block"), 3u);
    EXPECT_EQ(read_text_file(root_ / "artifact/sub/model.bin"), "rows42\nblock 0 block 1 block 2 ");
    EXPECT_TRUE(fs::is_empty(root_ / "runs/work"));
  }
}

TEST_F(StageTest, ACancelledRunIsInterruptedAndGoesOnWhereItWas) {
  cancel_at_block_ = 1;
  {
    const CancellationScope scope(cancellation_);
    try {
      run();
      FAIL() << "was not cancelled";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
      EXPECT_THAT(error.message(), HasSubstr("stage quantize"));
    }
    EXPECT_EQ(calls("block"), 2u);
    // Work under a token that was used up does not begin.
    EXPECT_THROW(run(), Error);
    EXPECT_EQ(calls("block"), 2u);
  }
  const std::vector<RunRecord> runs = Store(store_).list_runs();
  ASSERT_EQ(runs.size(), 2u);
  for (const RunRecord& stopped : runs) EXPECT_EQ(stopped.status, "interrupted");
  EXPECT_EQ(Store(store_).list_stages(runs.back().id).back().status, "interrupted");
  EXPECT_EQ(run().stages_run, 2);
  EXPECT_EQ(calls("block"), 3u);
  EXPECT_EQ(calls("calibrate"), 1u);
}

TEST_F(StageTest, TwoProcessesDoTheWorkOnce) {
  const auto start = [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        run();
      } catch (const Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ::_exit(1);
      }
      ::_exit(0);
    }
    return child;
  };
  const pid_t children[] = {start(), start(), start()};
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  for (const char* name : {"calibrate", "quantize", "evaluate"}) EXPECT_EQ(calls(name), 1u) << name;
  EXPECT_EQ(Store(store_).list_runs().size(), 3u);
}

TEST_F(StageTest, RefusesABrokenChain) {
  Store store(store_);
  const auto body = [](StageContext&) { return StageOutputs{}; };
  const Stage a{.name = "a", .body = body}, b{.name = "b", .after = {"a"}, .body = body};
  EXPECT_THROW(run_stages(store, "x", Json::object(), {b, a}), Error);
  EXPECT_THROW(run_stages(store, "x", Json::object(), {a, a}), Error);
  EXPECT_TRUE(store.list_runs().empty());
  const Stage liar{.name = "liar", .body = [this](StageContext&) { return StageOutputs{.paths = {{"x", root_ / "nowhere"}}}; }};
  EXPECT_THROW(run_stages(store, "x", Json::object(), {liar}, options_), Error);
}

}  // namespace
}  // namespace salient::pipeline
