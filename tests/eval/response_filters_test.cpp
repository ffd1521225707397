// Filters and exact_match against goldens by lm-evaluation-harness 0.4.13: scripts/goldens/eval_tasks.py and, for numbers,
// eval_metrics.py.
#include "eval/response_filters.h"

#include <gtest/gtest.h>

#include "eval/score_document.h"
#include "eval/task_library.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

Json golden(const char* file) { return read_json_file(SALIENT_SOURCE_DIR "/tests/data/eval/" + std::string(file)); }

std::vector<std::vector<std::string>> single(const Json& texts) {
  std::vector<std::vector<std::string>> out;
  for (const Json& text : texts) out.push_back({text.get<std::string>()});
  return out;
}

FilterStep step_of(const Json& json) {
  FilterStep step{json["function"].get<std::string>(), json};
  step.arguments.erase("function");
  return step;
}

TEST(ResponseFilters, EqualTheHarness) {
  const Json json = golden("tasks.json");
  const Json row = {{"choices", json["choices"]}};
  const std::vector<Document> rows(json["texts"].size(), make_document(row, "row"));
  ASSERT_FALSE(json["filters"].empty());
  for (const Json& pipeline : json["filters"]) {
    FilterPipeline filter;
    for (const Json& step : pipeline["steps"]) {
      filter.steps.push_back(step_of(step));
      check_filter(filter.steps.back());
    }
    const auto found = apply_filters(filter, single(json["texts"]), rows);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i], pipeline["results"][i].get<std::string>())
          << dump_json(pipeline["steps"]) << " on " << dump_json(json["texts"][i]);
    }
  }
}

TEST(ResponseFilters, ChooseAmongRepeats) {
  const std::vector<Document> rows(1);
  const std::vector<std::vector<std::string>> responses = {{"b", "a", "a", "b", "c"}};
  EXPECT_EQ(apply_filters({"m", {{"majority_vote", Json::object()}}}, responses, rows).at(0), "b");
  EXPECT_EQ(apply_filters({"m", {{"take_first_k", {{"k", 3}}}, {"majority_vote", Json::object()}}}, responses, rows).at(0), "a");
  EXPECT_EQ(apply_filters({"none", {{"take_first", Json::object()}}}, responses, rows).at(0), "b");
  EXPECT_THROW(apply_filters({"m", {{"take_first_k", {{"k", 9}}}}}, responses, rows), Error);
}

TEST(ResponseFilters, NameTheRowWhoseChoicesAreNoTexts) {
  const Json row = {{"choices", {1, 2}}};
  const std::vector<Document> documents = {make_document(row, "rows.jsonl:7")};
  const Error error = test::error_of(
      [&] {
        apply_filters({"m", {{"multi_choice_regex", Json::object()}}}, {{"b"}}, documents);
      },
      ErrorKind::kCorruption);
  EXPECT_TRUE(error.message().starts_with("rows.jsonl:7: ")) << error.message();
}

// scripts/goldens/eval_choice_filter.py.
TEST(ResponseFilters, ChoicesAreFoundBesideUnicodePunctuation) {
  const Json json = golden("choice_filter.json");
  std::vector<std::vector<std::string>> texts;
  std::vector<Document> documents;
  const Json row = {{"choices", json["choices"]}};
  for (const Json& text : json["texts"]) {
    texts.push_back({text.get<std::string>()});
    documents.push_back(make_document(row, "row"));
  }
  for (const Json& one : json["cases"]) {
    const auto found = apply_filters({"m", {{"multi_choice_regex", one["arguments"]}}}, texts, documents);
    for (size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(found[i], one["found"][i].get<std::string>()) << one["arguments"] << " " << texts[i][0];
  }
}

TEST(ResponseFilters, RefuseWhatTheyDoNotKnow) {
  for (const FilterStep& wrong :
       {FilterStep{"regx", Json::object()}, FilterStep{"regex", {{"pattern", "a"}}}, FilterStep{"regex", {{"regex_pattern", "("}}},
        FilterStep{"regex", {{"group_select", "last"}}}, FilterStep{"take_first_k", Json::object()}}) {
    EXPECT_EQ(test::error_of([&] { check_filter(wrong); }).kind(), ErrorKind::kInvalidArgument) << wrong.function;
  }
}

TEST(ExactMatch, EqualsTheHarness) {
  const Json json = golden("tasks.json");
  for (const Json& match : json["matches"]) {
    const Json& rules = match["rules"];
    MetricDefinition metric;
    metric.name = "exact_match";
    metric.exact_match = {rules.value("regexes_to_ignore", std::vector<std::string>()), rules.value("ignore_case", false),
                          rules.value("ignore_punctuation", false), rules.value("ignore_numbers", false)};
    const TextScorer scorer(metric);
    for (size_t i = 0; i < json["pairs"].size(); ++i) {
      const Json& pair = json["pairs"][i];
      EXPECT_EQ(scorer(pair[0], {pair[1]}).value == 1, match["equal"][i].get<bool>()) << dump_json(rules) << dump_json(pair);
    }
  }
}

// The bundled gsm8k finds and compares numbers as the harness's does.
TEST(NumericAnswers, OfGsm8k) {
  const Json rows = golden("numeric_answers.json");
  const TaskDefinition& task = *TaskLibrary::bundled().find("gsm8k").tasks.at(0);
  ASSERT_EQ(task.filters.size(), 2u);
  ASSERT_EQ(task.filters[0].name, "strict-match");
  const TextScorer same(task.metrics.at(0));
  std::vector<std::vector<std::string>> texts;
  for (const Json& row : rows) texts.push_back({row["text"].get<std::string>()});
  const std::vector<Document> documents(texts.size());
  const auto strict = apply_filters(task.filters[0], texts, documents);
  const auto flexible = apply_filters(task.filters[1], texts, documents);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows[i];
    const auto reference = row["reference"].get<std::string>();
    EXPECT_EQ(strict[i], row["strict"].get<std::string>()) << dump_json(row);
    EXPECT_EQ(flexible[i], row["flexible"].get<std::string>()) << dump_json(row);
    EXPECT_EQ(same(strict[i], {reference}).value == 1, row["strict_same"].get<bool>()) << dump_json(row);
    EXPECT_EQ(same(flexible[i], {reference}).value == 1, row["flexible_same"].get<bool>()) << dump_json(row);
    EXPECT_EQ(same(texts[i][0], {texts[i][0] + "."}).value == 1, row["text_same"].get<bool>()) << dump_json(row);
    EXPECT_EQ(same(texts[i][0], {texts[(i + 1) % texts.size()][0]}).value == 1, row["other_same"].get<bool>()) << dump_json(row);
  }
}

}  // namespace
}  // namespace salient::eval
