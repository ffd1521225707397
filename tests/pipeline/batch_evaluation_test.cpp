// `salient evaluate-all` over a folder of real artifacts of the demo model: what is paired, done, kept, left out, and gone on with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "common/json.h"
#include "pipeline/store.h"
#include "support/model_shelf.h"
#include "support/store_rows.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

int64_t evaluations_in(const fs::path& store) { return rows_in(store, "evaluations"); }
int64_t runs_in(const fs::path& store) { return rows_in(store, "runs"); }

class BatchEvaluationTest : public testing::Test {
 protected:
  // Models/{demo, demo_awq, renamed (compressed-tensors), demo-Q4_0.gguf, module/ (TorchScript), lora, cut}, made once.
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder();
    const fs::path calibration = write_calibration(folder_->path());
    put_demo(models() / "demo");
    for (const auto& [format, out] : {std::pair{"awq-gemm", "demo_awq"}, {"compressed-tensors", "renamed"}}) {
      made({"quantize", "--model", "Models/demo", "--calib", calibration.string(), "--n-grid", "2", "--self-generated", "0",
            "--format", format, "--out", std::string("Models/") + out});
    }
    made({"export", "--model", "Models/demo", "--format", "gguf-q4_0", "--out", "Models/demo-Q4_0.gguf"});
    made({"export", "--model", "Models/demo", "--format", "torchscript", "--out", "Models/demo_torchscript"});
    fs::create_directories(models() / "lora");
    write_text(models() / "lora" / "adapter_config.json", "{}");
    put_demo(models() / "cut");
    put_beginning(kDemoModel / "model.safetensors", models() / "cut" / "model.safetensors", 1000);
  }
  static void TearDownTestSuite() { delete folder_; }

  static void made(std::vector<std::string> words) {
    const ProgramResult result = run_program(std::move(words), folder_->path());
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  static fs::path models() { return folder_->path() / "Models"; }
  static fs::path store(const std::string& name) { return folder_->path() / name; }

  static ProgramCall call(const std::string& store, std::vector<std::string> more = {}, const std::string& folder = "Models",
                          const std::string& limit = "8") {
    const std::string data = (kDemoModel / "data").string();
    std::vector<std::string> words = {"evaluate-all",
                                      folder,
                                      "--tasks",
                                      "arc,perplexity",
                                      "--data",
                                      "arc=" + data + "/arc_test.jsonl",
                                      "--data",
                                      "perplexity=" + data + "/heldout.txt",
                                      "--limit",
                                      limit,
                                      "--window",
                                      "64",
                                      "--store",
                                      store,
                                      "--trust-torchscript",
                                      "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return {std::move(words), folder_->path(), {}, {}, std::chrono::seconds(300)};
  }

  static Json report_of(const ProgramResult& result, int exit_code = 0) {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    return parse_json(result.out, "evaluate-all --json");
  }
  static std::map<std::string, Json> by_model(const Json& report) {
    std::map<std::string, Json> out;
    for (const Json& model : report.at("models")) out[model.at("model")] = model;
    return out;
  }
  static std::set<std::string> with_state(const Json& report, const std::string& state) {
    std::set<std::string> out;
    for (const Json& model : report.at("models")) {
      if (model.at("state") == state) out.insert(model.at("model").get<std::string>());
    }
    return out;
  }

  static TemporaryFolder* folder_;
};
TemporaryFolder* BatchEvaluationTest::folder_ = nullptr;
const std::set<std::string> kAll = {"demo", "demo_awq", "renamed", "demo-Q4_0.gguf", "demo_torchscript"};

TEST_F(BatchEvaluationTest, EvaluatesAllBesideTheirBaseAndRanksThem) {
  const ProgramResult first = run_program(call("first.db"));
  const Json report = report_of(first);
  EXPECT_EQ(with_state(report, "done"), kAll);
  const auto models = by_model(report);
  const std::string base = models.at("demo").at("path");
  EXPECT_EQ(models.at("demo").at("base"), nullptr);
  for (const auto& [label, evidence] : std::map<std::string, std::string>{
           {"demo_awq", "hashes"}, {"renamed", "hashes"}, {"demo-Q4_0.gguf", "GGUF file"}, {"demo_torchscript", "by name"}}) {
    EXPECT_EQ(models.at(label).at("base"), base) << label;
    EXPECT_THAT(models.at(label).at("base_evidence").get<std::string>(), HasSubstr(evidence)) << label;
  }
  EXPECT_EQ(report.at("models").at(0).at("model"), "demo");  // before those that are compared with it
  EXPECT_EQ(models.at("renamed").at("format"), "compressed-tensors");
  ASSERT_EQ(report.at("left_out").size(), 2u);
  EXPECT_THAT(report.at("left_out").at(0).at("reason").get<std::string>(), HasSubstr("incomplete"));
  EXPECT_THAT(report.at("left_out").at(1).at("reason").get<std::string>(), HasSubstr("LoRA"));
  EXPECT_THAT(first.err, HasSubstr("LoRA adapter"));

  const Json& ranking = report.at("ranking");
  ASSERT_EQ(ranking.size(), 5u);
  double last = 2;
  for (const Json& row : ranking) {
    if (row.at("rank").is_null()) continue;
    const double retained = row.at("retained");
    EXPECT_LE(retained, last);
    last = retained;
    EXPECT_GT(row.at("size_ratio").get<double>(), 0);
    if (row.at("model") == "demo_torchscript") {
      EXPECT_LT(row.at("kl_divergence").get<double>(), 1e-6);  // the same weights
    }
    if (row.at("model") == "demo-Q4_0.gguf") {
      EXPECT_GT(row.at("kl_divergence").get<double>(), 1e-5);
    }
  }

  // The figures are those of salient eval.
  std::vector<std::string> words = call("alone.db").arguments;
  words[0] = "eval";
  words[1] = "Models/demo_awq";
  words.insert(words.end(), {"--compare-with", "Models/demo", "--no-throughput"});
  const ProgramResult alone = run_program(words, folder_->path());
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const Json evaluation = parse_json(alone.out, "eval --json");
  for (const Json& row : ranking) {
    if (row.at("model") != "demo_awq") continue;
    for (const Json& task : evaluation.at("model").at("tasks")) {
      for (const Json& metric : task.at("metrics")) {
        if (metric.at("metric") == "kl_divergence") {
          EXPECT_EQ(row.at("kl_divergence"), metric.at("value"));
        }
        if (task.at("task") == row.at("headlines").at(0).at("task") && metric.value("headline", false)) {
          EXPECT_EQ(row.at("retained"), metric.at("retention"));
        }
      }
    }
  }

  // Again: nothing is left to do, and nothing is added to the store.
  const int64_t runs = runs_in(store("first.db"));
  EXPECT_EQ(runs, 1);
  const Json again = report_of(run_program(call("first.db")));
  EXPECT_EQ(with_state(again, "up to date"), kAll);
  EXPECT_EQ(again.at("ranking"), ranking);
  EXPECT_EQ(runs_in(store("first.db")), runs);
  EXPECT_EQ(evaluations_in(store("first.db")), 5);
  // What the store has of salient eval counts as well.
  const Json plan = report_of(run_program(call("alone.db", {"--dry-run"})));
  EXPECT_EQ(with_state(plan, "up to date"), std::set<std::string>{"demo_awq"});
  // Other settings are other results.
  EXPECT_EQ(with_state(report_of(run_program(call("first.db", {"--dry-run"}, "Models", "9"))), "evaluate"), kAll);
  EXPECT_EQ(with_state(report_of(run_program(call("first.db", {"--dry-run", "--apply-chat-template"}))), "evaluate"), kAll);
  EXPECT_EQ(with_state(report_of(run_program(call("first.db", {"--dry-run", "--bos", "never"}))), "evaluate"), kAll);
  EXPECT_EQ(with_state(report_of(run_program(call("first.db", {"--dry-run", "--kv-bits", "8"}))), "up to date"),
            std::set<std::string>{"demo"});
  EXPECT_EQ(with_state(report_of(run_program(call("first.db", {"--dry-run", "--fresh"}))), "evaluate"), kAll);

  // For people.
  std::vector<std::string> plain = call("first.db").arguments;
  std::erase(plain, "--json");
  const ProgramResult table = run_program(plain, folder_->path());
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out,
              AllOf(HasSubstr("rank  model"), HasSubstr("retained"), HasSubstr("left out: "), HasSubstr("5 up to date")));
}

// Killed at any of several points and started again, it ends as an undisturbed one, and does what was done not again.
TEST_F(BatchEvaluationTest, KilledAndResumed) {
  const Json expected = report_of(run_program(call("whole.db"))).at("ranking");
  for (const int64_t done : {0, 1, 3}) {
    ProgramCall killed = call("killed.db");
    killed.kill_when = [&](const std::string& err) {
      return done == 0 ? err.find("arc") != std::string::npos || evaluations_in(store("killed.db")) > 0
                       : evaluations_in(store("killed.db")) >= done;
    };
    const ProgramResult result = run_program(killed);
    EXPECT_TRUE(result.killed) << result.err;
    EXPECT_GE(evaluations_in(store("killed.db")), done);
  }
  const int64_t kept = evaluations_in(store("killed.db"));
  const Json last = report_of(run_program(call("killed.db")));
  EXPECT_EQ(with_state(last, "up to date").size(), static_cast<size_t>(kept));
  EXPECT_EQ(with_state(last, "done").size(), kAll.size() - static_cast<size_t>(kept));
  EXPECT_EQ(last.at("ranking"), expected);
  EXPECT_EQ(evaluations_in(store("killed.db")), 5);
}

TEST_F(BatchEvaluationTest, InterruptedItSaysWhatIsLeft) {
  ProgramCall interrupted = call("interrupted.db");
  interrupted.interrupt_when = [](const std::string& err) { return err.find("[1/5]") != std::string::npos; };
  const ProgramResult result = run_program(interrupted);
  EXPECT_EQ(result.signal, SIGINT) << result.err;
  const Json report = parse_json(result.out, "evaluate-all --json");
  EXPECT_GE(with_state(report, "stopped").size(), 1u);
  EXPECT_GE(with_state(report, "done").size(), 1u);
  EXPECT_THAT(result.err, HasSubstr("the same command goes on"));
  const std::vector<pipeline::RunRecord> runs = pipeline::Store(store("interrupted.db")).list_runs();
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs.front().status, "interrupted");
}

// Two jobs with stores of their own, as a cluster would run them elsewhere.
TEST_F(BatchEvaluationTest, AsJobsOfALauncherItEndsTheSame) {
  const Json expected = report_of(run_program(call("here.db"))).at("ranking");
  const std::vector<std::string> launcher = {"--launcher", "local", "--launcher-set", "max_jobs=2", "--launcher-set", "cpus=1"};
  fs::create_directories(folder_->path() / "elsewhere");
  const ProgramResult launched = run_program(call("elsewhere/all.db", launcher));
  const Json report = report_of(launched);
  EXPECT_EQ(with_state(report, "done"), kAll) << launched.err;
  EXPECT_EQ(report.at("ranking"), expected);
  EXPECT_THAT(launched.err, HasSubstr("2/2 jobs"));
  EXPECT_EQ(evaluations_in(store("elsewhere/all.db")), 5);
  size_t jobs = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_->path() / "elsewhere" / "launches"))
    jobs += entry.path().filename() == "salient.db";
  EXPECT_EQ(jobs, 2u);
  // Nothing is left for a second call, here or elsewhere; one model more is all that a third one launches.
  EXPECT_EQ(with_state(report_of(run_program(call("elsewhere/all.db", launcher))), "up to date"), kAll);
  const Json chosen = report_of(run_program(call("elsewhere/all.db", {"--only", "demo_awq"}, "Models", "9")));
  EXPECT_EQ(with_state(chosen, "done"), std::set<std::string>{"demo_awq"});
  EXPECT_EQ(chosen.at("models").size(), 1u);
  const Json rest = report_of(run_program(call("elsewhere/all.db", launcher, "Models", "9")));
  EXPECT_EQ(with_state(rest, "up to date"), std::set<std::string>{"demo_awq"});
  EXPECT_EQ(with_state(rest, "done").size(), kAll.size() - 1);

  const ProgramResult wrong = run_program(call("elsewhere/all.db", {"--only", "demo_aqw"}));
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("did you mean 'demo_awq'"));
  EXPECT_EQ(run_program(call("elsewhere/all.db", {"--detach"})).exit_code, 2);
  EXPECT_EQ(run_program(call("elsewhere/all.db", {"--fresh", "--launcher", "local"})).exit_code, 2);
}

TEST_F(BatchEvaluationTest, GoesOnAfterAFailureAndTriesAgain) {
  // All files are there and whole, but a tensor has another shape than config.json says.
  const fs::path broken = folder_->path() / "Shelf" / "broken";
  fs::remove_all(folder_->path() / "Shelf");
  put_demo(broken);
  put_demo(folder_->path() / "Shelf" / "fine");
  write_text(folder_->path() / "Shelf" / "fine" / "config.json",
             file_bytes(kDemoModel / "config.json") + "\n");  // no copy of the other
  Json config = parse_json(file_bytes(kDemoModel / "config.json"), "config.json");
  config["intermediate_size"] = 512;
  write_text(broken / "config.json", dump_json(config));

  const ProgramResult failed = run_program(call("broken.db", {"--retries", "1"}, "Shelf"));
  const Json report = report_of(failed, 7);
  EXPECT_EQ(with_state(report, "failed"), std::set<std::string>{"broken"});
  EXPECT_EQ(with_state(report, "done"), std::set<std::string>{"fine"});
  const Json model = by_model(report).at("broken");
  EXPECT_EQ(model.at("attempts"), 2);
  EXPECT_THAT(model.at("reason").get<std::string>(), HasSubstr("shape"));
  EXPECT_THAT(failed.err, AllOf(HasSubstr("broken: tried again"), HasSubstr("[BATCH_FAILED]"), HasSubstr("1 of 2 models failed")));
  EXPECT_EQ(by_model(report_of(run_program(call("broken.db", {"--retries", "0"}, "Shelf")), 7)).at("broken").at("attempts"), 1);

  // Repaired, it is all that is left to do.
  fs::copy_file(kDemoModel / "config.json", broken / "config.json", fs::copy_options::overwrite_existing);
  const Json repaired = report_of(run_program(call("broken.db", {}, "Shelf")));
  EXPECT_EQ(with_state(repaired, "done"), std::set<std::string>{"broken"});
  EXPECT_EQ(with_state(repaired, "up to date"), std::set<std::string>{"fine"});
}

TEST_F(BatchEvaluationTest, WhatDoesNotFitIsSkippedWithTheFigures) {
  const Json report = report_of(run_program(call("memory.db", {"--memory", "1MB"})));
  EXPECT_EQ(with_state(report, "skipped"), kAll);
  EXPECT_THAT(by_model(report).at("demo_awq").at("reason").get<std::string>(),
              AllOf(HasSubstr("needs "), HasSubstr("base 1"), HasSubstr("976.6 KiB may be used")));
  EXPECT_EQ(evaluations_in(store("memory.db")), 0);
  // The estimate holds the weights as they are measured in memory, and is no more than twice that.
  std::vector<std::string> words = call("memory.db").arguments;
  words[0] = "eval";
  words[1] = "Models/demo_awq";
  const ProgramResult measured = run_program(words, folder_->path());
  ASSERT_EQ(measured.exit_code, 0) << measured.err;
  const Json plan = report_of(run_program(call("memory_plan.db", {"--dry-run"})));
  const double estimate =
      by_model(plan).at("demo_awq").at("memory_bytes").get<double>() - by_model(plan).at("demo").at("memory_bytes").get<double>();
  const Json result = parse_json(measured.out, "eval --json");
  const double actual = result.at("model").at("throughput").at("weights_memory_bytes");
  EXPECT_GT(estimate, 0.9 * actual);
  EXPECT_LT(estimate, 2 * actual);
}

TEST_F(BatchEvaluationTest, CommandsOfThePlanDoEachModelElsewhere) {
  const Json plan = report_of(run_program(call("commands.db", {"--dry-run", "--kv-bits", "8"})));
  EXPECT_EQ(with_state(plan, "evaluate"), kAll);
  EXPECT_EQ(evaluations_in(store("commands.db")), 0);
  for (const Json& model : plan.at("models")) {
    if (model.at("model") == "demo_torchscript") continue;  // its cache cannot be rounded: below
    const ProgramResult result = run_program(model.at("command").get<std::vector<std::string>>(), folder_->path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
  const Json after = report_of(run_program(call("commands.db", {"--kv-bits", "8", "--retries", "3"})), 7);
  EXPECT_EQ(with_state(after, "up to date").size(), kAll.size() - 1);
  const Json script = by_model(after).at("demo_torchscript");
  EXPECT_EQ(script.at("state"), "failed");
  EXPECT_EQ(script.at("attempts"), 1);  // it would fail again
}

TEST_F(BatchEvaluationTest, TwoAtOnceShareTheWork) {
  ProgramResult one;
  ProgramResult other;
  std::thread first([&] { one = run_program(call("both.db")); });
  std::thread second([&] { other = run_program(call("both.db")); });
  first.join();
  second.join();
  const Json a = report_of(one);
  const Json b = report_of(other);
  EXPECT_EQ(a.at("ranking"), b.at("ranking"));
  int64_t attempts = 0;
  for (const Json& report : {a, b}) {
    for (const Json& model : report.at("models")) attempts += model.at("attempts").get<int64_t>();
  }
  EXPECT_EQ(attempts, 5);
  EXPECT_EQ(evaluations_in(store("both.db")), 5);
}

TEST_F(BatchEvaluationTest, WrongCallsSayWhatIsWrong) {
  const fs::path empty = folder_->path() / "Empty";
  fs::create_directories(empty);
  EXPECT_EQ(run_program(call("x.db", {}, "Empty")).exit_code, 3);
  EXPECT_EQ(run_program(call("x.db", {}, "None")).exit_code, 3);
  const ProgramResult no_base = run_program(call("x.db", {"--base", "demo*="}));
  EXPECT_EQ(no_base.exit_code, 2);
  EXPECT_THAT(no_base.err, HasSubstr("NAME=MODEL"));
  EXPECT_EQ(run_program({"evaluate-all", "--tasks", "arc"}, folder_->path()).exit_code, 2);
}

}  // namespace
}  // namespace salient::test
