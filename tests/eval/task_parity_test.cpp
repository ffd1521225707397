// Whole tasks on the demo model against lm-evaluation-harness 0.4.13: prompts, log-likelihoods, texts, scores. Goldens:
// tests/data/eval/tasks.json, made by scripts/goldens/eval_tasks.py.
#include <gtest/gtest.h>

#include "common/file.h"
#include "eval/evaluate.h"
#include "eval/prepared_task.h"
#include "eval/rolling_loglikelihood.h"
#include "models/text/parquet_rows.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

const LanguageModel& demo() {
  static const LanguageModel model = load_language_model(SALIENT_SOURCE_DIR "/models/demo");
  return model;
}

const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/tasks.json");
  return json;
}

std::filesystem::path write_rows(const std::filesystem::path& file, const Json& rows) {
  std::string lines;
  for (const Json& row : rows) lines += dump_json(row) + "\n";
  write_file(file, lines);
  return file;
}

class TaskParity : public testing::TestWithParam<size_t> {
 protected:
  const Json& expected() const { return golden()["tasks"].at(GetParam()); }
  TaskRequest request() const {
    TaskRequest out{expected()["task"], {}, 0, 0, {}, {}};
    out.splits[expected()["split"]] = write_rows(folder_.path() / "rows.jsonl", expected()["rows"]);
    if (!expected()["pool"].is_null())
      out.splits[expected()["pool_split"]] = write_rows(folder_.path() / "pool.jsonl", expected()["pool"]);
    if (!expected()["shots"].is_null()) out.num_fewshot = expected()["shots"].get<int64_t>();
    return out;
  }
  EvaluationOptions options() const {
    EvaluationOptions out;
    out.apply_chat_template = expected()["chat"].get<bool>();
    out.throughput = false;
    out.bootstrap_draws = 1000;
    return out;
  }
  test::TemporaryFolder folder_;
};

TEST_P(TaskParity, PromptsAreTheSame) {
  const TaskRequest asked = request();
  const TaskDefinition& task = *TaskLibrary::bundled().find(asked.task).tasks.at(0);
  if (task.output_type == OutputType::kLoglikelihoodRolling) return;
  const PreparedTask prepared = prepare_task(demo(), task, asked, options());
  ASSERT_EQ(prepared.prompts.size(), expected()["documents"].size());
  for (size_t i = 0; i < prepared.prompts.size(); ++i) {
    EXPECT_EQ(prepared.prompts[i], expected()["documents"][i]["prompts"].get<std::vector<std::string>>());
  }
}

TEST_P(TaskParity, ResultsAreTheSame) {
  const Evaluation evaluation = evaluate(demo(), nullptr, {request()}, options());
  const TaskResult& result = evaluation.model.tasks.at(0);
  ASSERT_EQ(result.documents.size(), expected()["documents"].size());
  for (size_t i = 0; i < result.documents.size(); ++i) {
    const Json& document = expected()["documents"][i];
    std::vector<double> log_probs;
    for (const Json& response : document["responses"]) {
      if (response.is_string()) {
        EXPECT_EQ(result.documents[i].response.text, response.get<std::string>());
      } else {
        log_probs.push_back((response.is_array() ? response[0] : response).get<double>());
      }
    }
    ASSERT_EQ(result.documents[i].response.log_probs.size(), log_probs.size());
    for (size_t k = 0; k < log_probs.size(); ++k) EXPECT_NEAR(result.documents[i].response.log_probs[k], log_probs[k], 1e-3);
    for (const auto& [metric, value] : document["scores"].items()) {
      if (result.task == "squad_v2") continue;  // its figures are those of tests/data/eval/squad.json
      ASSERT_TRUE(result.documents[i].score(metric)) << metric;
      EXPECT_NEAR(*result.documents[i].score(metric), value.get<double>(), 1e-3) << metric;
    }
    for (const auto& [filter, text] : result.documents[i].extracted)
      EXPECT_EQ(text, document["filtered"][filter][0].get<std::string>());
  }
  for (const auto& [key, value] : expected()["metrics"].items()) {
    // "acc", "acc_stderr", "exact_match,strict-match", "exact_match_stderr,strict-match"
    std::string metric = key;
    const size_t at = metric.find("_stderr");
    if (at != std::string::npos) metric.erase(at, std::string("_stderr").size());
    const MetricResult* found = result.find(metric);
    ASSERT_NE(found, nullptr) << metric;
    const double figure = at == std::string::npos ? found->value.value : found->value.stderr_of_mean.value_or(-1);
    EXPECT_NEAR(figure, value.get<double>(), 1e-4 * std::max(1.0, std::abs(value.get<double>()))) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, TaskParity, testing::Range<size_t>(0, golden()["tasks"].size()), [](const auto& at) {
  return golden()["tasks"].at(at.param)["task"].template get<std::string>() + "_" + std::to_string(at.param);
});

TEST(RollingWindows, ScoreEachTokenOnce) {
  const std::vector<models::TokenId> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const auto windows = rolling_windows(ids, 0, 4);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].context, (std::vector<models::TokenId>{0}));
  EXPECT_EQ(windows[0].continuation, (std::vector<models::TokenId>{1, 2, 3, 4}));
  EXPECT_EQ(windows[1].context, (std::vector<models::TokenId>{4}));
  EXPECT_EQ(windows[1].continuation, (std::vector<models::TokenId>{5, 6, 7, 8}));
  EXPECT_EQ(windows[2].context, (std::vector<models::TokenId>{6, 7, 8}));  // slid back
  EXPECT_EQ(windows[2].continuation, (std::vector<models::TokenId>{9, 10}));
  EXPECT_TRUE(rolling_windows({}, 0, 4).empty());
}

TEST(TaskGroups, AreEvaluatedWithTheirMembersAndABase) {
  const test::TemporaryFolder folder;
  Json rows = Json::array();
  for (int i = 0; i < 6; ++i) {
    rows.push_back({{"question", "What is 1 + " + std::to_string(i) + "?"},
                    {"choices", {"1", "2", "3", "4"}},
                    {"answer", i % 4},
                    {"subject", i < 2 ? "anatomy" : "virology"}});
  }
  const auto file = write_rows(folder.path() / "all.jsonl", rows);
  write_file(folder.path() / "two.yaml",
             "group: two\ntask: [mmlu_anatomy, mmlu_virology]\naggregate_metric_list: [{metric: acc}]\n");
  TaskLibrary library = TaskLibrary::bundled();
  library.add_folder(folder.path());
  EvaluationOptions options;
  options.throughput = false;
  options.tasks = &library;
  const Evaluation evaluation = evaluate(demo(), &demo(), {{"two", file, 0, 0, {}, {}}}, options);
  ASSERT_EQ(evaluation.model.tasks.size(), 3u);
  EXPECT_EQ(evaluation.model.tasks[0].documents.size(), 2u);
  EXPECT_EQ(evaluation.model.tasks[1].documents.size(), 4u);
  const MetricResult& group = evaluation.model.tasks[2].metrics.at(0);
  EXPECT_EQ(group.n, 6);
  EXPECT_TRUE(group.headline);
  EXPECT_FALSE(evaluation.model.tasks[0].metrics.at(0).headline);
  ASSERT_TRUE(group.base);
  EXPECT_EQ(group.base->difference.value, 0);
  EXPECT_EQ(group.base->difference.stderr_of_mean, 0);
  // Data of one member, beside those of the others.
  const auto few = write_rows(folder.path() / "few.jsonl", Json::array({rows[5]}));
  TaskRequest apart{"two", file, 0, 0, {}, {}};
  apart.members["mmlu_virology"] = {few, {}};
  const Evaluation two = evaluate(demo(), nullptr, {apart}, options);
  ASSERT_EQ(two.model.tasks.size(), 3u);
  EXPECT_EQ(two.model.tasks[0].documents.size(), 2u);
  EXPECT_EQ(two.model.tasks[1].file, few.string());
  EXPECT_EQ(two.model.tasks[2].metrics.at(0).n, 3);
  // A subject that the file does not have.
  const Error error = test::error_of(
      [&] {
        evaluate(demo(), nullptr, {{"mmlu_astronomy", file, 0, 0, {}, {}}}, options);
      },
      ErrorKind::kInvalidArgument);
  EXPECT_NE(error.message().find("astronomy"), std::string::npos);
}

TEST(TaskData, ExamplesWithoutAFileSayHowToNameOne) {
  const test::TemporaryFolder folder;
  const auto file = write_rows(folder.path() / "rows.jsonl", Json::array({{{"question", "1?"}, {"answer", "#### 1"}}}));
  const Error error = test::error_of(
      [&] {
        evaluate(demo(), nullptr, {{"gsm8k", file, 0, 0, {}, {}}}, {});
      },
      ErrorKind::kInvalidArgument);
  EXPECT_NE(error.hint().find("--data gsm8k:train=FILE"), std::string::npos) << error.hint();
}

TEST(TaskData, FoldersSayWhatTheyWereSearchedFor) {
  const test::TemporaryFolder folder;
  const TaskDefinition& task = *TaskLibrary::bundled().find("arc_easy").tasks.at(0);
  const Error error = test::error_of([&] { find_split(task, "test", {folder.path(), {}}); }, ErrorKind::kInvalidArgument);
  EXPECT_NE(error.message().find("ARC-Easy/test, ARC-Easy_test, test"), std::string::npos) << error.message();
  // A folder of Hugging Face's hub, and the nearer name before it.
  const std::filesystem::path shard = folder.path() / "data/ARC-Easy/test-00000-of-00001.parquet";
  std::filesystem::create_directories(shard.parent_path());
  write_file(shard, "");
  EXPECT_EQ(find_split(task, "test", {folder.path(), {}}), shard);
  write_rows(folder.path() / "test.jsonl", Json::array());
  EXPECT_EQ(find_split(task, "test", {folder.path(), {}}), folder.path() / "test.jsonl");
}

TEST(TaskData, ReadsParquet) {
  if (!models::reads_parquet()) GTEST_SKIP() << "built without Apache Arrow";
  TaskDefinition task;
  task.name = "t";
  task.test_split = "test";
  const TaskRows rows =
      load_split(task, "test", {std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/parquet/plain.parquet", {}});
  ASSERT_EQ(rows.rows.size(), 3u);
  EXPECT_EQ(rows.rows[1], (Json{{"question", "2 + 2?"}, {"answer", "4"}, {"score", 2}, {"choices", {"4"}}}));
}

TEST(TaskData, RowFiltersCompareNumbers) {
  const test::TemporaryFolder folder;
  TaskDefinition task;
  task.name = "t";
  task.test_split = "test";
  task.row_filter = {{"level", "3"}};
  const auto file = write_rows(folder.path() / "rows.jsonl", {{{"level", 3}}, {{"level", "3"}}, {{"level", 4}}});
  EXPECT_EQ(load_split(task, "test", {file, {}}).line_numbers, (std::vector<int64_t>{1, 2}));
}

TEST(PreparedTasks, TooFewExamplesNameTaskAndFile) {
  const test::TemporaryFolder folder;
  const Json row = {{"question", "1?"}, {"answer", "#### 1"}};
  const auto file = write_rows(folder.path() / "rows.jsonl", Json::array({row}));
  const Error error = test::error_of(
      [&] {
        evaluate(demo(), nullptr, {{"gsm8k", file, 0, 0, {{"train", file}}, {}}}, {});
      },
      ErrorKind::kInvalidArgument);
  EXPECT_NE(error.message().find("task gsm8k: examples of " + file.string()), std::string::npos) << error.message();
  EXPECT_NE(error.hint().find("--num-fewshot"), std::string::npos) << error.hint();
}

// A later row whose text is all digits does not turn a task of one prompt a row into one with a prompt for each choice, nor the
// other way.
TEST(PreparedTasks, RowsAgreeOnMultipleInputs) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "t.yaml",
             "task: t\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_choice: [x, y, z]\n"
             "doc_to_target: 0\n");
  const TaskSelection selection = TaskLibrary::bundled().find((folder.path() / "t.yaml").string());
  const auto prepared = [&](const Json& rows) {
    return prepare_task(demo(), *selection.tasks.at(0), {"t", write_rows(folder.path() / "rows.jsonl", rows), 0, 0, {}, {}}, {});
  };
  EXPECT_EQ(prepared({{{"q", "a"}}, {{"q", "b"}}}).prompts.at(1).size(), 1u);
  EXPECT_EQ(prepared({{{"q", "0"}}, {{"q", "1"}}}).prompts.at(1).size(), 3u);
  for (const Json& rows : {Json{{{"q", "a"}}, {{"q", "1"}}}, Json{{{"q", "0"}}, {{"q", "b"}}}}) {
    const Error error = test::error_of([&] { prepared(rows); }, ErrorKind::kCorruption);
    EXPECT_NE(error.message().find("rows.jsonl:2: doc_to_text"), std::string::npos) << error.message();
  }
}

// One question twice, with either answer: the class 1 is right once, and chosen twice or never.
TEST(MultipleChoice, ClassMetricsAreOfTwoClasses) {
  const test::TemporaryFolder folder;
  const auto run = [&](const std::string& choices, const Json& answer) {
    write_file(folder.path() / "t.yaml",
               "task: t\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_choice: " + choices +
                   "\ndoc_to_target: answer\nmetric_list: [{metric: f1}, {metric: mcc}, {metric: acc}, {metric: bypass}]\n");
    const auto file = write_rows(folder.path() / "rows.jsonl", {{{"q", "one two one two one"}, {"answer", 0}},
                                                                {{"q", "one two one two one"}, {"answer", answer}}});
    EvaluationOptions options;
    options.throughput = false;
    options.bootstrap_draws = 1000;
    return evaluate(demo(), nullptr, {{(folder.path() / "t.yaml").string(), file, 0, 0, {}, {}}}, options).model.tasks.at(0);
  };
  const TaskResult result = run("[xylophone, two]", 1);
  ASSERT_EQ(result.metrics.size(), 3u) << "bypass is nothing of choices";
  const double chosen = result.documents.at(0).scores.at(0).value;
  EXPECT_EQ(result.documents.at(1).scores.at(0).value, chosen) << "the same question";
  EXPECT_DOUBLE_EQ(result.metrics[0].value.value, chosen == 1 ? 2.0 / 3.0 : 0.0);
  EXPECT_TRUE(result.metrics[0].value.stderr_of_mean);
  EXPECT_EQ(result.metrics[1].value.value, 0);
  EXPECT_EQ(result.metrics[2].value.value, 0.5);
  for (const auto& [choices, answer, text] : {std::tuple<std::string, Json, std::string>{"[x, y, z]", 1, "3 choices"},
                                              {"[x, y]", 2, "none of them right"},
                                              {"[x, y]", Json::array({0, 1}), "2 answers"}}) {
    const Error error = test::error_of([&] { run(choices, answer); }, ErrorKind::kCorruption);
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("rows.jsonl:"), std::string::npos) << error.message();
  }
}

// A label is the same number in every format, also where there are texts alone; one that is none of the choices is said.
TEST(MultipleChoice, LabelsOfTablesAreNumbers) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "t.yaml",
             "task: t\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_choice: '{{[a, b]}}'\n"
             "doc_to_target: label\nmetric_list: [{metric: acc}]\n");
  const auto run = [&](const std::filesystem::path& file) {
    EvaluationOptions options;
    options.throughput = false;
    return evaluate(demo(), nullptr, {{(folder.path() / "t.yaml").string(), file, 0, 0, {}, {}}}, options).model.tasks.at(0);
  };
  const auto golds = [](const TaskResult& result) {
    std::vector<int64_t> found;
    for (const DocumentRecord& document : result.documents) found.push_back(document.gold_choices.at(0));
    return found;
  };
  const Json rows = {{{"q", "one"}, {"a", "two"}, {"b", "three"}, {"label", 1}},
                     {{"q", "two"}, {"a", "x"}, {"b", "y"}, {"label", 0}}};
  const TaskResult typed = run(write_rows(folder.path() / "rows.jsonl", rows));
  EXPECT_EQ(golds(typed), (std::vector<int64_t>{1, 0}));
  write_file(folder.path() / "rows.csv", "q,a,b,label\none,two,three,1\ntwo,x,y,0\n");
  const TaskResult table = run(folder.path() / "rows.csv");
  EXPECT_EQ(golds(table), golds(typed));
  EXPECT_EQ(table.metrics.at(0).value.value, typed.metrics.at(0).value.value);
  EXPECT_TRUE(table.flags.empty());

  // Digits that are a choice's text mean that choice.
  write_file(folder.path() / "rows.csv", "q,a,b,label\none,1,0,1\n");
  EXPECT_EQ(golds(run(folder.path() / "rows.csv")), (std::vector<int64_t>{0}));

  write_file(folder.path() / "rows.csv", "q,a,b,label\none,two,three,3\ntwo,x,y,maybe\ntwo,x,y,0\n");
  const TaskResult wrong = run(folder.path() / "rows.csv");
  EXPECT_EQ(golds(wrong), (std::vector<int64_t>{-1, -1, 0}));
  ASSERT_EQ(wrong.flags.size(), 1u);
  EXPECT_EQ(wrong.flags[0].kind, FlagKind::kNoRightChoice);
  EXPECT_NE(wrong.flags[0].text.find("67 %"), std::string::npos) << wrong.flags[0].text;
  EXPECT_EQ(wrong.flags[0].document, 2);

  const Error error = test::error_of(
      [&] {
        run(write_rows(folder.path() / "rows.jsonl", {{{"q", "one"}, {"a", "two"}, {"b", "three"}}}));
      },
      ErrorKind::kCorruption);
  EXPECT_NE(error.message().find("rows.jsonl:1: doc_to_target"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("a, b, q"), std::string::npos) << error.message();
}

TEST(MultipleChoice, ABrierScoreNeedsAnAnswer) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "t.yaml",
             "task: t\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_choice: [x, y]\n"
             "doc_to_target: answers\nmetric_list: [{metric: brier_score}]\n");
  const Json rows = {{{"q", "a"}, {"answers", Json::array({0})}}, {{"q", "a"}, {"answers", Json::array()}}};
  const auto file = write_rows(folder.path() / "rows.jsonl", rows);
  const Error error = test::error_of(
      [&] {
        evaluate(demo(), nullptr, {{(folder.path() / "t.yaml").string(), file, 0, 0, {}, {}}}, {});
      },
      ErrorKind::kCorruption);
  EXPECT_NE(error.message().find("rows.jsonl:2: doc_to_target"), std::string::npos) << error.message();
}

}  // namespace
}  // namespace salient::eval
