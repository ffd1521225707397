// Result files against those that lm-evaluation-harness 0.4.13 writes. Golden: tests/data/eval/lm_eval_files.json, made by
// scripts/goldens/lm_eval_files.py.
#include "eval/lm_eval_results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/file.h"
#include "eval/lm_eval_samples.h"
#include "eval/row_order.h"
#include "support/temporary_folder.h"

namespace salient::eval {
namespace {

namespace fs = std::filesystem;
using ::testing::MatchesRegex;

const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/lm_eval_files.json");
  return json;
}

std::string kind(const Json& value) { return value.is_number() ? "number" : value.type_name(); }

// Everything that the reference has is there, of the same type, and equal; figures and what is printed of them within the bounds of
// log-likelihoods.
void expect_like(const std::string& where, const Json& found, const Json& expected) {
  SCOPED_TRACE(where);
  ASSERT_EQ(kind(found), kind(expected)) << dump_json(found) << " for " << dump_json(expected);
  if (expected.is_object()) {
    for (const auto& [key, value] : expected.items()) {
      ASSERT_TRUE(found.contains(key)) << key;
      expect_like(where + "." + key, found.at(key), value);
    }
  } else if (expected.is_array()) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) expect_like(where + "[]", found[i], expected[i]);
  } else if (expected.is_number()) {
    EXPECT_NEAR(found.get<double>(), expected.get<double>(), 1e-3);
  } else if (double number = 0; expected.is_string() && std::sscanf(expected.get<std::string>().c_str(), "-%lf", &number) == 1) {
    EXPECT_NEAR(std::stod(found.get<std::string>()), -number, 1e-3);
  } else {
    EXPECT_EQ(found, expected);
  }
}

class LmEvalFiles : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    const LanguageModel model = load_language_model(SALIENT_SOURCE_DIR "/models/demo");
    std::vector<TaskRequest> requests;
    for (const auto& [task, text] : golden()["texts"].items()) {
      const fs::path file = folder_->path() / (task + ".jsonl");
      write_file(file, text.get<std::string>());
      requests.push_back({task, file, 2, 0, {{"train", file}}, 1});
    }
    EvaluationOptions options;
    options.throughput = false;
    options.bootstrap_draws = 1000;
    evaluation_ = new Evaluation(evaluate(model, nullptr, requests, options));
    run_ = new LmEvalRun{.model_name = "models/demo",
                         .model = lm_eval_model(model, false),
                         .started = 1738312200.25,
                         .seconds = 1.5,
                         .limit = 2,
                         .fewshot_seed = kFewshotSeed,
                         .bootstrap_draws = 1000,
                         .fewshot_as_multiturn = true,
                         .system_instruction = ""};
  }
  static void TearDownTestSuite() {
    delete evaluation_;
    delete run_;
    delete folder_;
  }

  static const test::TemporaryFolder* folder_;
  static const Evaluation* evaluation_;
  static const LmEvalRun* run_;
};
const test::TemporaryFolder* LmEvalFiles::folder_ = nullptr;
const Evaluation* LmEvalFiles::evaluation_ = nullptr;
const LmEvalRun* LmEvalFiles::run_ = nullptr;

TEST_F(LmEvalFiles, SamplesAreTheSameWithTheirHashes) {
  ASSERT_EQ(evaluation_->model.tasks.size(), 2u);
  for (const TaskResult& task : evaluation_->model.tasks) {
    const Json& expected = golden()["samples"][task.task];
    const std::vector<OrderedJson> found = lm_eval_samples(task);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      const Json sample = Json::parse(found[i].dump());
      expect_like(task.task, sample, expected[i]);
      EXPECT_EQ(sample.size(), expected[i].size());
    }
    EXPECT_EQ(lm_eval_task_hash(found), golden()["results"]["task_hashes"][task.task].get<std::string>());
  }
}

TEST_F(LmEvalFiles, ResultsHaveTheSameKeysAndFigures) {
  Json expected = golden()["results"];
  for (const char* own : {"task_hashes", "model_source"}) expected.erase(own);
  for (const char* own : {"model", "model_num_parameters", "batch_size", "model_revision"}) expected["config"].erase(own);
  const Json found = lm_eval_results(*evaluation_, *run_);
  expect_like("results", found, expected);
  EXPECT_EQ(found["configs"]["gsm8k"]["filter_list"][0]["name"], "strict-match");
  EXPECT_EQ(found["configs"]["gsm8k"]["num_fewshot"], 1);
  EXPECT_EQ(found["salient"]["model"]["tasks"].size(), 2u);
}

TEST_F(LmEvalFiles, AreNamedAsThere) {
  const test::TemporaryFolder out;
  const fs::path file = write_lm_eval_files(out.path(), *evaluation_, *run_, /*samples=*/true);
  EXPECT_EQ(file, out.path() / "models__demo/results_2025-01-31T08-30-01.750000.json");
  EXPECT_EQ(read_json_file(file)["task_hashes"], golden()["results"]["task_hashes"]);
  EXPECT_TRUE(fs::exists(out.path() / "models__demo/samples_arc_easy_2025-01-31T08-30-01.750000.jsonl"));
  EXPECT_TRUE(fs::exists(out.path() / "models__demo/samples_gsm8k_2025-01-31T08-30-01.750000.jsonl"));
  const fs::path named = write_lm_eval_files(out.path() / "mine.json", *evaluation_, *run_, /*samples=*/false);
  EXPECT_EQ(named, out.path() / "mine_2025-01-31T08-30-01.750000.json");
}

TEST(LmEvalFileName, ReplacesRuns) {
  EXPECT_EQ(lm_eval_file_name("/models/org/a:b"), "__models__org__a__b");
  EXPECT_EQ(lm_eval_file_name("a<>:\"b"), "a__b");  // one run
}

TEST(RowOrder, IsThatOfTheFile) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "rows.jsonl", "{\"b\": {\"y\": 1, \"x\": [{\"q\": 1, \"p\": 2}]}}\n{\"a\": 1, \"b\": {\"w\": 2}}\n");
  const RowOrder order = read_row_order(folder.path() / "rows.jsonl");
  EXPECT_EQ(ordered_row({{"a", 1}, {"b", {{"w", 2}}}, {"z", 3}, {"added", 4}}, order, {"z"}).dump(),
            R"({"b":{"y":null,"x":null,"w":2},"a":1,"added":4,"z":3})");
  write_file(folder.path() / "rows.csv", "b,\"a\"\r\n1,2\r\n");
  EXPECT_EQ(ordered_row({{"a", 1}, {"b", 2}}, read_row_order(folder.path() / "rows.csv")).dump(), R"({"b":2,"a":1})");
}

}  // namespace
}  // namespace salient::eval
