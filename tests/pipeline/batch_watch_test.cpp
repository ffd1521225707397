// `salient watch` beside somebody who writes checkpoints: it takes them when they are whole, and not before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "common/json.h"
#include "pipeline/export_model.h"
#include "pipeline/store.h"
#include "support/model_shelf.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class BatchWatchTest : public testing::Test {
 protected:
  ProgramCall call(std::vector<std::string> more) const {
    std::vector<std::string> words = {
        "watch",  "Models", "--tasks", "arc",      "--data", "arc=" + (kDemoModel / "data/arc_test.jsonl").string(), "--limit", "4",
        "--poll", "1",      "--store", "watch.db", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return {std::move(words), folder_.path(), {}, {}, std::chrono::seconds(240)};
  }
  std::set<std::string> evaluated() const {
    std::set<std::string> names;
    if (!fs::exists(folder_.path() / "watch.db")) return names;
    for (const pipeline::EvaluationRecord& record : pipeline::Store(folder_.path() / "watch.db").list_evaluations()) {
      names.insert(record.model_name + (record.base_name.empty() ? "" : " beside " + record.base_name));
    }
    return names;
  }
  fs::path models() const { return folder_.path() / "Models"; }
  static std::string state_of(const Json& report, const std::string& model) {
    for (const Json& entry : report.at("models")) {
      if (entry.at("model") == model) return entry.at("state");
    }
    return "";
  }

  TemporaryFolder folder_;
};

TEST_F(BatchWatchTest, TakesCheckpointsWhenTheyAreWholeAndNotBefore) {
  put_demo(models() / "demo");
  put_demo(models() / "broken");
  Json config = parse_json(file_bytes(kDemoModel / "config.json"), "config.json");
  config["intermediate_size"] = 512;
  write_text(models() / "broken" / "config.json", dump_json(config));

  // A writer that needs its time: config first, the weights in two parts, the tokenizer last.
  const fs::path late = models() / "late";
  bool early = false;  // evaluated before it was whole
  ProgramCall watched = call({"--settle", "1", "--until-idle", "4", "--retries", "0"});
  int step = 0;
  std::chrono::steady_clock::time_point written;
  watched.kill_when = [&](const std::string& err) {  // asked again and again: a clock for this side
    const auto now = std::chrono::steady_clock::now();
    if (step == 0 && err.find("demo: done") != std::string::npos) {
      fs::create_directories(late);
      Json other = parse_json(file_bytes(kDemoModel / "config.json"), "config.json");
      other["transformers_version"] = "4.52.0";  // no copy of the demo
      write_text(late / "config.json", dump_json(other));
      put_beginning(kDemoModel / "model.safetensors", late / "model.safetensors", 4000000);
      written = now;
      step = 1;
    } else if (step == 1 && now - written > std::chrono::milliseconds(2500)) {
      fs::copy_file(kDemoModel / "model.safetensors", late / "model.safetensors", fs::copy_options::overwrite_existing);
      written = now;
      step = 2;
    } else if (step == 2 && now - written > std::chrono::milliseconds(2500)) {
      early = evaluated().contains("late");
      fs::copy_file(kDemoModel / "tokenizer.json", late / "tokenizer.json");
      fs::copy_file(kDemoModel / "tokenizer_config.json", late / "tokenizer_config.json");
      step = 3;
    }
    return false;
  };
  const ProgramResult result = run_program(watched);
  EXPECT_EQ(result.exit_code, 7) << result.err;  // of the broken one
  EXPECT_EQ(step, 3);
  EXPECT_FALSE(early);
  EXPECT_EQ(evaluated(), (std::set<std::string>{"demo", "late"}));
  EXPECT_THAT(result.err, HasSubstr("late: incomplete"));
  const Json report = parse_json(result.out, "watch --json");
  EXPECT_EQ(state_of(report, "demo"), "done");
  EXPECT_EQ(state_of(report, "late"), "done");
  EXPECT_EQ(state_of(report, "broken"), "failed");
  // Once, not at every look.
  const size_t first = result.err.find("broken: failed");
  ASSERT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("broken: failed", first + 1), std::string::npos) << result.err;
}

TEST_F(BatchWatchTest, OnceLooksOnceAndComparesAgainWhenTheBaseComes) {
  fs::create_directories(models());
  pipeline::export_model({kDemoModel, models() / "demo-Q8_0.gguf", "demo"}, "gguf-q8_0");
  const ProgramResult unsettled = run_program(call({"--settle", "3600", "--once"}));
  EXPECT_EQ(unsettled.exit_code, 0) << unsettled.err;
  EXPECT_THAT(unsettled.err, HasSubstr("still changing"));
  EXPECT_EQ(evaluated(), std::set<std::string>{});

  EXPECT_EQ(run_program(call({"--settle", "0", "--once"})).exit_code, 0);
  EXPECT_EQ(evaluated(), std::set<std::string>{"demo-Q8_0"});
  put_demo(models() / "demo");
  EXPECT_EQ(run_program(call({"--settle", "0", "--once"})).exit_code, 0);
  EXPECT_EQ(evaluated(), (std::set<std::string>{"demo", "demo-Q8_0", "demo-Q8_0 beside demo"}));
  const ProgramResult again = run_program(call({"--settle", "0", "--once"}));
  const Json report = parse_json(again.out, "watch --json");
  EXPECT_EQ(state_of(report, "demo"), "up to date");
  EXPECT_EQ(report.at("ranking").at(0).at("model"), "demo-Q8_0.gguf");
}

TEST_F(BatchWatchTest, EndsCleanlyOnCtrlC) {
  put_demo(models() / "demo");
  ProgramCall watched = call({"--settle", "0"});
  watched.interrupt_when = [](const std::string& err) { return err.find("demo: done") != std::string::npos; };
  const ProgramResult result = run_program(watched);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(state_of(parse_json(result.out, "watch --json"), "demo"), "done");
  // In the middle of an evaluation: what is left is said, and the next call goes on.
  ProgramCall early = call({"--settle", "0", "--fresh", "--limit", "100"});
  std::erase(early.arguments, "4");
  early.arguments.erase(std::find(early.arguments.begin(), early.arguments.end(), "--limit"));
  early.interrupt_when = [](const std::string& err) { return err.find("watching") != std::string::npos; };
  const ProgramResult stopped = run_program(early);
  EXPECT_EQ(stopped.exit_code, 0) << stopped.err;
  const Json report = parse_json(stopped.out, "watch --json");
  EXPECT_THAT(state_of(report, "demo"), testing::AnyOf("stopped", ""));
}

TEST_F(BatchWatchTest, WrongCallsSayWhatIsWrong) {
  EXPECT_EQ(run_program(call({"--once"})).exit_code, 3);  // no such folder
  fs::create_directories(models());
  const ProgramResult both = run_program(call({"--once", "--until-idle", "3"}));
  EXPECT_EQ(both.exit_code, 2);
  EXPECT_THAT(both.err, HasSubstr("exclude each other"));
}

}  // namespace
}  // namespace salient::test
