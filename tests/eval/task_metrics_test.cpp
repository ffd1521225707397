#include "eval/task_metrics.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/aggregation.h"
#include "eval/hellaswag_task.h"
#include "eval/score_document.h"
#include "eval/text_units.h"
#include "eval/wikitext_task.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

// By scripts/goldens/eval_tasks.py with lm-evaluation-harness 0.4.13.
const Json& golden() {
  static const Json json = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/tasks.json");
  return json;
}

TEST(Aggregation, EqualsTheHarness) {
  const Json& expected = golden()["aggregations"];
  std::vector<Score> scores;
  for (const Json& value : expected["values"]) scores.push_back({"m", value.get<double>(), static_cast<double>(scores.size() + 1)});
  const Estimate perplexity = aggregate("perplexity", scores, 3000);
  EXPECT_NEAR(perplexity.value, expected["perplexity"].get<double>(), 1e-9);
  EXPECT_NEAR(*perplexity.stderr_of_mean, expected["perplexity_stderr"].get<double>(), 1e-9);
  const Estimate median = aggregate("median", scores, 2000);
  EXPECT_DOUBLE_EQ(median.value, expected["median"].get<double>());
  EXPECT_NEAR(*median.stderr_of_mean, expected["median_stderr"].get<double>(), 1e-12);
  EXPECT_NEAR(aggregate("bits_per_byte", scores).value, expected["bits_per_byte"].get<double>(), 1e-12);
  EXPECT_FALSE(aggregate("bits_per_byte", scores).stderr_of_mean);
  EXPECT_FALSE(aggregate("perplexity", scores, 0).stderr_of_mean);
  EXPECT_EQ(aggregate("mean", {}).value, 0);
}

// Blocks of draws have streams of their own, so that it does not matter which thread takes which.
TEST(Aggregation, BootstrapsDoNotDependOnThreads) {
  std::vector<Score> scores;
  for (int i = 0; i < 37; ++i) scores.push_back({"m", -std::abs(std::sin(i)) * 9});
  const int threads = at::get_num_threads();
  for (const char* name : {"perplexity", "median", "nanmean"}) {
    at::set_num_threads(1);
    const Estimate alone = aggregate(name, scores, 20'000);
    at::set_num_threads(3);
    const Estimate shared = aggregate(name, scores, 20'000);
    EXPECT_GT(*alone.stderr_of_mean, 0) << name;
    EXPECT_EQ(*alone.stderr_of_mean, *shared.stderr_of_mean) << name;
  }
  at::set_num_threads(threads);
}

// By scripts/goldens/eval_class_metrics.py.
TEST(Aggregation, ClassMetricsEqualTheHarness) {
  const Json expected = read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/class_metrics.json");
  const auto draws = expected["draws"].get<int64_t>();
  const auto check = [&](const std::string& name, const std::vector<Score>& scores, const Json& wanted) {
    const Estimate found = aggregate(name, scores, draws);
    EXPECT_NEAR(found.value, wanted["value"].get<double>(), 1e-12) << name;
    ASSERT_EQ(found.stderr_of_mean.has_value(), !wanted["stderr"].is_null()) << name;
    if (!found.stderr_of_mean) return;
    EXPECT_NEAR(*found.stderr_of_mean, wanted["stderr"].get<double>(), 1e-12) << name;
  };
  for (const Json& one : expected["cases"]) {
    std::vector<Score> f1, mcc;
    for (const Json& document : one["documents"]) {
      const auto choices = document["choices"].get<std::vector<std::string>>();
      Response response;
      response.log_probs = document["log_probs"].get<std::vector<double>>();
      response.is_greedy.resize(choices.size());
      const auto scores = score_choices({{.name = "acc", .exact_match = {}},
                                         {.name = "f1", .exact_match = {}},
                                         {.name = "bypass", .exact_match = {}},
                                         {.name = "mcc", .exact_match = {}}},
                                        choices, gold_choice(document["gold"], choices), response, {});
      ASSERT_EQ(scores.size(), 3u);
      EXPECT_EQ(scores[0].value, document["acc"].get<double>());
      EXPECT_EQ(scores[1].value, document["predicted"].get<double>());
      EXPECT_EQ(scores[1].gold, std::max<int64_t>(document["label"].get<int64_t>(), -1));  // -100 there
      f1.push_back(scores[1]);
      mcc.push_back(scores[2]);
    }
    if (one["aggregations"].contains("f1")) check("f1", f1, one["aggregations"]["f1"]);
    check("matthews_corrcoef", mcc, one["aggregations"]["matthews_corrcoef"]);
  }
  std::vector<Score> values;
  for (const Json& value : expected["nanmean"]["values"])
    values.push_back({"m", value.is_null() ? std::nan("") : value.get<double>()});
  check("nanmean", values, expected["nanmean"]);
  EXPECT_EQ(aggregate("bypass", values).value, expected["bypass"].get<double>());
  EXPECT_FALSE(aggregate("bypass", values).stderr_of_mean);
}

TaskResult leaf(const char* name, double acc, double error, int64_t n) {
  TaskResult result;
  result.task = name;
  result.metrics = {
      {.metric = "acc", .headline = true, .aggregation = "mean", .value = {acc, error}, .n = n, .chance = 0.25, .base = {}},
      {.metric = "acc_norm", .value = {acc, error}, .n = n, .chance = {}, .base = {}}};
  return result;
}

TEST(GroupResult, PoolsByDocuments) {
  const std::vector<TaskResult> tasks = {leaf("a", 0.5, 0.1, 10), leaf("b", 0.25, 0.2, 7), leaf("c", 1.0, 0.05, 30)};
  const TaskResult group = group_result({"g", {"a", "b", "c"}, {{"acc", {}, true}}}, tasks);
  ASSERT_EQ(group.metrics.size(), 1u);
  EXPECT_DOUBLE_EQ(group.metrics[0].value.value, (5.0 + 1.75 + 30) / 47);
  EXPECT_NEAR(*group.metrics[0].value.stderr_of_mean, golden()["aggregations"]["pooled"].get<double>(), 1e-12);
  EXPECT_EQ(group.metrics[0].n, 47);
  EXPECT_DOUBLE_EQ(*group.metrics[0].chance, 0.25);
  const TaskResult plain = group_result({"g", {"a", "b", "c"}, {{"acc", {}, false}}}, tasks);
  EXPECT_DOUBLE_EQ(plain.metrics[0].value.value, 1.75 / 3);
  EXPECT_NEAR(*plain.metrics[0].value.stderr_of_mean, std::sqrt(0.01 + 0.04 + 0.0025) / 3, 1e-12);
  EXPECT_EQ(test::error_of([&] { group_result({"g", {"x"}, {}}, tasks); }).kind(), ErrorKind::kInternal);
}

std::vector<MetricDefinition> metrics(std::initializer_list<const char*> names) {
  std::vector<MetricDefinition> out;
  for (const char* name : names) out.push_back({.name = name, .exact_match = {}});
  return out;
}

TEST(ScoreChoices, CountsLengthsInCodePointsAndBytes) {
  // Sums: the first choice; by code points the second; by bytes the third.
  const std::vector<std::string> choices = {"a", "\u00e9\u00e9\u00e9\u00e9", "bbbbb"};
  Response response;
  response.log_probs = {-2.0, -4.0, -4.5};
  response.is_greedy = {0, 1, 0};
  const auto score = [&](int64_t gold, const char* metric) {
    return score_choices(metrics({metric}), choices, {{gold}}, response, {-1.0, -5.0, -4.5}).at(0).value;
  };
  EXPECT_EQ(score(0, "acc"), 1);
  EXPECT_EQ(score(2, "acc_norm"), 1);   // -0.9 a character against -1
  EXPECT_EQ(score(1, "acc_bytes"), 1);  // -0.5 a byte
  EXPECT_EQ(score(1, "acc_mutual_info"), 1);
  EXPECT_EQ(score(1, "exact_match"), 1);
  EXPECT_EQ(score(2, "exact_match"), 0);
  EXPECT_EQ(score(-1, "acc"), 0);
  response.log_probs = {-2.0, -2.0, -2.0};  // the first of equal ones
  EXPECT_EQ(score(0, "acc"), 1);
  EXPECT_EQ(score(1, "acc"), 0);
  EXPECT_NEAR(score(0, "brier_score"), 4.0 / 9 + 1.0 / 9 + 1.0 / 9, 1e-12);
}

TEST(GoldChoice, OfIndexTextAndList) {
  const std::vector<std::string> choices = {"no", "yes"};
  EXPECT_EQ(gold_choice(1, choices).choices, (std::vector<int64_t>{1}));
  EXPECT_EQ(gold_choice("yes", choices).choices, (std::vector<int64_t>{1}));
  EXPECT_EQ(gold_choice("maybe", choices).choices, (std::vector<int64_t>{-1}));
  EXPECT_EQ(gold_choice(2, choices).choices, (std::vector<int64_t>{-1}));
  EXPECT_EQ(gold_choice(Json{0, 5}, choices).choices, (std::vector<int64_t>{0, -1}));
}

TEST(HellaswagTask, CleansTextsAsTheHarness) {
  for (const Json& example : golden()["hellaswag"]) {
    Json row = {{"activity_label", ""}, {"ctx_a", "x"}, {"ctx_b", "the PERSON"}, {"endings", {example["text"]}}};
    hellaswag_process_docs(row, "row");
    EXPECT_EQ(row["choices"][0], example["processed"]) << dump_json(example);
    EXPECT_EQ(row["query"], ": x The person");
  }
  Json wrong = {{"activity_label", ""}, {"ctx_a", ""}, {"ctx_b", ""}, {"endings", "x"}};
  EXPECT_EQ(test::error_of([&] { hellaswag_process_docs(wrong, "row"); }).kind(), ErrorKind::kCorruption);
}

TEST(WikitextTask, DetokenizesAndCountsAsTheHarness) {
  for (const Json& example : golden()["wikitext"]) {
    EXPECT_EQ(wikitext_detokenized_page({{"page", example["page"]}}, "row"), example["text"]) << dump_json(example["page"]);
    EXPECT_EQ(count_words(example["page"].get<std::string>()), example["words"].get<int64_t>()) << dump_json(example["page"]);
  }
}

TEST(WikitextTask, PagesBeginAtTopLevelHeadings) {
  const auto pages = wikitext_pages(" \n = One = \n \n text \n = = Part = = \n x \n = Two = \n y \n");
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_EQ(pages[0]["page"], " = One = \n \n text \n = = Part = = \n x ");
  EXPECT_EQ(pages[1]["page"], " = Two = \n y \n");
}

}  // namespace
}  // namespace salient::eval
