// A task's figures beside those of its base, from made-up documents, and their way through JSON.
#include "eval/compare_documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/file.h"
#include "eval/evaluate.h"
#include "eval/paired_bootstrap.h"
#include "eval/read_report.h"
#include "eval/report.h"
#include "eval/task_metrics.h"
#include "support/temporary_folder.h"

namespace salient::eval {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TaskDefinition task_of(OutputType type, std::vector<MetricDefinition> metrics,
                       std::vector<FilterPipeline> filters = {{"none", {}}}) {
  TaskDefinition task;
  task.name = "made";
  task.output_type = type;
  task.metrics = std::move(metrics);
  task.filters = std::move(filters);
  return task;
}

// A document with four choices; the model takes `chosen`, `lead` nats ahead of all others.
DocumentRecord choice(int64_t gold, int64_t chosen, double lead, int64_t cluster = 0) {
  DocumentRecord document;
  document.response.log_probs = {-9, -9, -9, -9};
  document.response.log_probs[static_cast<size_t>(chosen)] += lead;
  document.response.is_greedy = {0, 0, 0, 0};
  document.gold_choices = {gold};
  document.chance = 0.25;
  document.cluster = cluster;
  document.scores = {{.metric = "acc", .value = chosen == gold ? 1.0 : 0.0, .chosen = chosen}};
  return document;
}

DocumentRecord generation(const char* text, const char* extracted, double score) {
  DocumentRecord document;
  document.response.text = text;
  document.extracted = {{"strict", extracted}};
  document.scores = {{.metric = "exact_match,strict", .value = score}};
  return document;
}

TaskResult scored(const TaskDefinition& task, std::vector<DocumentRecord> documents) {
  TaskResult result;
  result.task = task.name;
  result.settings = Json::object();
  result.documents = std::move(documents);
  add_metrics(task, 0, result);
  return result;
}

const TaskDefinition& choices() {
  static const TaskDefinition task = task_of(OutputType::kMultipleChoice, {{.name = "acc", .headline = true, .exact_match = {}}});
  return task;
}

TEST(CompareDocuments, OfChoices) {
  std::vector<DocumentRecord> base;
  std::vector<DocumentRecord> now;
  for (int i = 0; i < 40; ++i) {
    base.push_back(choice(i % 4, i < 30 ? i % 4 : (i + 1) % 4, i < 4 ? 0.05 : 2.0));  // 30 right, 4 fragile
    now.push_back(base.back());
  }
  for (size_t i = 0; i < 5; ++i) now[i] = choice(static_cast<int64_t>(i) % 4, (static_cast<int64_t>(i) + 1) % 4, 1.0);  // lost
  now[35] = choice(3, 3, 1.0);                                                                                          // gained
  now[36] = choice(0, 2, 1.0);  // wrong as before, elsewhere
  TaskResult result = scored(choices(), now);
  const TaskResult base_result = scored(choices(), base);
  compare_documents(result, base_result);

  const MetricResult& acc = *result.find("acc");
  ASSERT_TRUE(acc.base && acc.base->flips && acc.base->difference_95 && acc.base->retention_95 && acc.base->p_value);
  EXPECT_DOUBLE_EQ(acc.base->difference.value, -0.1);
  EXPECT_EQ(acc.base->flips->lost, 5);
  EXPECT_EQ(acc.base->flips->gained, 1);
  EXPECT_DOUBLE_EQ(acc.base->flips->changed, 7.0 / 40);
  EXPECT_DOUBLE_EQ(*acc.base->p_value, mcnemar_exact_p(5, 1));
  EXPECT_LT(acc.base->difference_95->low, -0.15);
  EXPECT_GT(acc.base->difference_95->high, -0.05);
  EXPECT_LT(acc.base->retention_95->low, 26.0 / 30);
  EXPECT_GT(acc.base->retention_95->high, 26.0 / 30);
  EXPECT_FALSE(acc.base->clusters);
  EXPECT_NEAR(*acc.base->detectable_difference, kDetectable80 * std::sqrt((8.0 / 42 - std::pow(4.0 / 42, 2)) / 42), 1e-12);
  ASSERT_TRUE(acc.value_95);
  EXPECT_DOUBLE_EQ(acc.value_95->low, wilson_interval(26, 40).low);

  ASSERT_TRUE(result.calibration && base_result.calibration);
  EXPECT_DOUBLE_EQ(base_result.calibration->fragile, 0.1);
  EXPECT_DOUBLE_EQ(result.calibration->fragile, 0.0);
  // Four margins grow from 0.05 to 1, three fall from 2 to 1.
  EXPECT_NEAR(result.calibration->margin_change->value, (4 * 0.95 - 3 * 1.0) / 40, 1e-12);
  // Confidence of a lead l: e^l / (e^l + 3). The base: 4 at lead 0.05, all right, and 36 at lead 2, 26 of them right.
  const auto confidence = [](double lead) { return std::exp(lead) / (std::exp(lead) + 3); };
  const double ece = (4 * std::abs(1 - confidence(0.05)) + 36 * std::abs(26.0 / 36 - confidence(2))) / 40;
  EXPECT_NEAR(*base_result.calibration->ece, ece, 1e-12);
  EXPECT_NEAR(*result.calibration->ece_change, *result.calibration->ece - ece, 1e-15);
  EXPECT_FALSE(result.generations);
}

TEST(CompareDocuments, NothingThatDiffersIsNotCertainty) {
  std::vector<DocumentRecord> documents;
  for (int i = 0; i < 20; ++i) documents.push_back(choice(0, i % 2, 1.0));
  TaskResult result = scored(choices(), documents);
  compare_documents(result, scored(choices(), documents));
  const BaseComparison& base = *result.find("acc")->base;
  EXPECT_EQ(*base.p_value, 1);
  EXPECT_DOUBLE_EQ(base.difference_95->high, unseen_bound(20));
  EXPECT_DOUBLE_EQ(base.difference_95->low, -unseen_bound(20));
  EXPECT_DOUBLE_EQ(base.retention_95->low, 1 - unseen_bound(20) / 0.5);
  EXPECT_NEAR(*base.detectable_difference, kDetectable80 * std::sqrt(2.0) / 22, 1e-12);
}

TEST(CompareDocuments, PassagesAreOneObservationEach) {
  std::vector<DocumentRecord> base;
  std::vector<DocumentRecord> now;
  std::vector<DocumentRecord> alone;
  for (int64_t i = 0; i < 60; ++i) {  // 12 passages; all five questions of three of them are lost together
    const int64_t cluster = i / 5 + 1;
    base.push_back(choice(0, 0, 1.0, cluster));
    now.push_back(choice(0, cluster <= 3 ? 1 : 0, 1.0, cluster));
    alone.push_back(choice(0, cluster <= 3 ? 1 : 0, 1.0));
  }
  TaskResult clustered = scored(choices(), now);
  compare_documents(clustered, scored(choices(), base));
  const BaseComparison& of_clusters = *clustered.find("acc")->base;
  TaskResult independent = scored(choices(), alone);
  compare_documents(independent, scored(choices(), base));
  const BaseComparison& of_documents = *independent.find("acc")->base;

  EXPECT_EQ(of_clusters.clusters, 12);
  EXPECT_FALSE(of_documents.clusters);
  EXPECT_NEAR(*of_clusters.clustered_stderr, std::sqrt(3 * std::pow(5 * 0.75, 2) + 9 * std::pow(5 * 0.25, 2)) / 60, 1e-12);
  EXPECT_DOUBLE_EQ(*of_clusters.p_value, 0.25);  // three signs: both of the extreme sums of eight
  EXPECT_LT(*of_documents.p_value, 1e-4);
  EXPECT_GT(of_clusters.difference_95->high - of_clusters.difference_95->low,
            1.5 * (of_documents.difference_95->high - of_documents.difference_95->low));
  EXPECT_GT(*of_clusters.detectable_difference, 1.5 * *of_documents.detectable_difference);
  EXPECT_EQ(of_clusters.flips->lost, 15);
}

TEST(CompareDocuments, OfGenerations) {
  const TaskDefinition task =
      task_of(OutputType::kGenerateUntil, {{.name = "exact_match", .headline = true, .exact_match = {}}}, {{"strict", {}}});
  TaskResult result = scored(task, {generation("it is 7", "7", 1), generation("it is 8!", "8", 0),
                                    generation("\u00e9\u00e8", "x", 0), generation("", "y", 0)});
  compare_documents(result, scored(task, {generation("it is 7", "7", 1), generation("it is 8", "8", 0),
                                          generation("\u00e9\u00e9", "z", 0), generation("ab", "y", 1)}));
  const MetricResult& metric = *result.find("exact_match,strict");
  EXPECT_DOUBLE_EQ(metric.base->flips->changed, 0.25);  // by what the filter found, not by the text
  EXPECT_EQ(metric.base->flips->lost, 1);
  ASSERT_TRUE(result.generations);
  EXPECT_DOUBLE_EQ(result.generations->same, 0.25);
  EXPECT_NEAR(*result.generations->length_change, (0 + 1.0 / 7 + 0 - 1) / 4, 1e-12);
  EXPECT_DOUBLE_EQ(*result.generations->first_difference, 1);  // of 7, 1 and 0: characters, not bytes
  EXPECT_NEAR(result.generations->common_start, (1 + 7.0 / 8 + 0.5 + 0) / 4, 1e-12);
  EXPECT_FALSE(result.calibration);
}

TEST(CompareDocuments, OfWeightedPerplexity) {
  const TaskDefinition task = task_of(OutputType::kLoglikelihoodRolling, {{.name = "word_perplexity",
                                                                           .aggregation = "weighted_perplexity",
                                                                           .unit = Unit::kNone,
                                                                           .higher_is_better = false,
                                                                           .exact_match = {}}});
  std::vector<DocumentRecord> base(12);
  std::vector<DocumentRecord> now(12);
  double sum = 0;
  double words = 0;
  for (size_t i = 0; i < 12; ++i) {
    const double weight = 10.0 + static_cast<double>(i);
    base[i].scores = {{"word_perplexity", -2 * weight, weight}};
    now[i].scores = {{"word_perplexity", -(2.0 + 0.01 * static_cast<double>(i)) * weight, weight}};
    sum += now[i].scores.front().value;
    words += weight;
  }
  TaskResult result = scored(task, now);
  compare_documents(result, scored(task, base));
  const MetricResult& metric = *result.find("word_perplexity");
  EXPECT_NEAR(metric.base->difference.value, std::exp(-sum / words) - std::exp(2.0), 1e-12);
  EXPECT_GT(metric.base->difference_95->low, 0);
  EXPECT_NEAR(*metric.base->p_value, 2.0 / 2048, 1e-12);  // 11 documents differ, all to one side
  EXPECT_FALSE(metric.base->flips);
  EXPECT_FALSE(metric.base->retention);
  EXPECT_GT(*metric.base->difference.stderr_of_mean, 0);
}

TEST(CompareDocuments, SurvivesJson) {
  std::vector<DocumentRecord> base;
  std::vector<DocumentRecord> now;
  for (int64_t i = 0; i < 40; ++i) {
    base.push_back(choice(0, i % 3 == 0 ? 1 : 0, 1.0, i / 2 + 1));
    now.push_back(choice(0, i % 4 == 0 ? 2 : 0, 0.5, i / 2 + 1));
  }
  Evaluation evaluation;
  evaluation.model.model = "now";
  evaluation.model.description = Json::object();
  evaluation.base.emplace();
  evaluation.base->model = "base";
  evaluation.base->description = Json::object();
  evaluation.base->tasks.push_back(scored(choices(), base));
  evaluation.model.tasks.push_back(scored(choices(), now));
  TaskResult& task = evaluation.model.tasks.front();
  compare_documents(task, evaluation.base->tasks.front());
  task.flags = {{FlagKind::kRepetition, 0.5, 7, "loops"}, {FlagKind::kChanceLevel, 1, std::nullopt, "guesses"}};
  task.generations = GenerationComparison{40, 0.5, 0.25, 3, 0.75};

  const Json json = to_json(evaluation);
  const Json& metric = json["model"]["tasks"][0]["metrics"][0];
  for (const char* key : {"value_low", "value_high", "difference_low", "difference_high", "retention_low", "retention_high",
                          "p_value", "difference_clustered_stderr", "clusters", "detectable_difference", "flips"}) {
    EXPECT_TRUE(metric.contains(key)) << key;
  }
  EXPECT_EQ(metric["flips"].size(), 5U);
  EXPECT_EQ(json["model"]["tasks"][0]["flags"][0]["document"], 7);
  EXPECT_FALSE(json["model"]["tasks"][0]["flags"][1].contains("document"));
  EXPECT_EQ(json["verdict_lines"].size(), 1U);
  const Evaluation read = evaluation_from_json(json, "test");
  EXPECT_EQ(to_json(read), json);
  EXPECT_EQ(to_table(read), to_table(evaluation));
  EXPECT_THAT(to_table(read), HasSubstr("! made: repetition: loops"));
}

// Which documents belong together is said by the task, or by the group.
TEST(CompareDocuments, ClustersOfTasksAndGroups) {
  const LanguageModel model = load_language_model(SALIENT_SOURCE_DIR "/models/demo");
  const test::TemporaryFolder folder;
  const TaskSelection group = TaskLibrary::bundled().find("mmlu_social_sciences");
  ASSERT_EQ(group.tasks.size(), 12U);
  std::string passages;
  std::string subjects;
  for (int i = 0; i < 24; ++i) {
    const std::string number = std::to_string(i / 2);
    passages += dump_json(Json{{"passage", "Box " + number + " is red."}, {"question", "is it"}, {"label", i % 2}}) + "\n";
    const std::string& subject = group.tasks[static_cast<size_t>(i / 2)]->dataset_name;
    subjects +=
        dump_json(Json{{"subject", subject}, {"question", "Which?"}, {"choices", {"a", "b", "c", "d"}}, {"answer", i % 4}}) + "\n";
  }
  write_file(folder.path() / "boolq.jsonl", passages);
  write_file(folder.path() / "mmlu.jsonl", subjects);
  EvaluationOptions options;
  options.throughput = false;
  const Evaluation evaluation = evaluate(model, &model,
                                         {{.task = "boolq", .file = folder.path() / "boolq.jsonl"},
                                          {.task = "mmlu_social_sciences", .file = folder.path() / "mmlu.jsonl"}},
                                         options);
  ASSERT_EQ(evaluation.model.tasks.size(), 14U);
  EXPECT_EQ(evaluation.model.tasks.front().find("acc")->base->clusters, 12);
  EXPECT_FALSE(evaluation.model.tasks[1].find("acc")->base->clusters);
  const MetricResult& whole = *evaluation.model.tasks.back().find("acc");
  EXPECT_EQ(whole.base->clusters, 12);
  EXPECT_EQ(whole.n, 24);
  EXPECT_EQ(whole.base->flips->changed, 0);
  EXPECT_TRUE(evaluation.model.tasks.back().calibration);
}

TEST(CompareDocuments, FiguresBeyondAnyNumber) {
  const TaskDefinition task = task_of(
      OutputType::kLoglikelihood,
      {{.name = "perplexity", .aggregation = "perplexity", .unit = Unit::kNone, .higher_is_better = false, .exact_match = {}}});
  std::vector<DocumentRecord> base(3);
  std::vector<DocumentRecord> now(3);
  for (size_t i = 0; i < 3; ++i) {
    base[i].scores = {{"perplexity", -2}};
    now[i].scores = {{"perplexity", -1e6}};
  }
  Evaluation evaluation;
  evaluation.model.tasks.push_back(scored(task, now));
  compare_documents(evaluation.model.tasks[0], scored(task, base));
  EXPECT_TRUE(std::isinf(evaluation.model.tasks[0].metrics[0].base->difference.value));
  EXPECT_FALSE(evaluation.model.tasks[0].metrics[0].base->difference_95);
  const Evaluation read = evaluation_from_json(parse_json(dump_json(to_json(evaluation)), "report"), "report");
  EXPECT_TRUE(std::isnan(read.model.tasks[0].metrics[0].value.value));
  EXPECT_NEAR(read.model.tasks[0].metrics[0].base->base_value, std::exp(2), 1e-12);
}

TEST(CompareDocuments, TablesLeaveDetailsOut) {
  Evaluation evaluation;
  evaluation.model.tasks.emplace_back();
  evaluation.model.tasks[0].metrics = {{.metric = "shown", .value = {1, {}}, .chance = {}, .base = {}},
                                       {.metric = "hidden", .detail = true, .value = {1, {}}, .chance = {}, .base = {}}};
  EXPECT_THAT(to_table(evaluation), HasSubstr("shown"));
  EXPECT_THAT(to_table(evaluation), Not(HasSubstr("hidden")));
  EXPECT_EQ(evaluation_from_json(to_json(evaluation), "test").model.tasks[0].metrics[1].detail, true);
}

}  // namespace
}  // namespace salient::eval
