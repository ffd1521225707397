// What an evaluation leaves in the store, and what a repeated one leaves of the one before.
#include "pipeline/evaluation_records.h"

#include <gtest/gtest.h>

#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

eval::ModelResult model_result(const std::string& name, double accuracy, const std::string& dtype = "float32") {
  eval::ModelResult result;
  result.model = name;
  result.description = {{"name", name}, {"dtype", dtype}};
  eval::TaskResult& task = result.tasks.emplace_back();
  task.task = "arc";
  task.data_sha256 = "d";
  task.settings = {{"documents", 4}, {"model", result.description}};
  task.metrics.push_back(
      {.metric = "acc", .value = {accuracy, std::nullopt}, .n = 4, .chance = std::nullopt, .base = std::nullopt});
  return result;
}

eval::Throughput throughput(double tokens_per_second) {
  eval::Throughput out;
  out.prompt_tokens_per_second = tokens_per_second;
  return out;
}

class EvaluationRecordsTest : public testing::Test {
 protected:
  EvaluationRecordsTest() {
    for (const char* name : {"model", "base"}) {
      fs::create_directories(folder_.path() / name);
      test::write_text(folder_.path() / name / "config.json", "{}");
    }
  }
  EvaluatedModel evaluated(const std::string& name) const { return {folder_.path() / name, "hash of " + name}; }
  void record(const eval::Evaluation& evaluation) {
    record_evaluation(store_, std::nullopt, evaluation, evaluated("model"), evaluated("base"));
  }
  Json only() const {
    const auto found = store_.list_evaluations();
    EXPECT_EQ(found.size(), 1u);
    return found.empty() ? Json() : found.front().evaluation;
  }

  test::TemporaryFolder folder_;
  Store store_{folder_.path() / "s.db"};
};

TEST_F(EvaluationRecordsTest, ARepeatedOneKeepsSpeedAndCosts) {
  eval::Evaluation first{model_result("model", 0.5), model_result("base", 0.75), {}};
  first.model.throughput = throughput(100);
  first.base->throughput = throughput(50);
  first.runtime_costs.push_back({8, 16, "text", {}});
  record(first);

  const eval::Evaluation second{model_result("model", 0.25), model_result("base", 0.75), {}};
  record(second);
  Json kept = only();
  EXPECT_EQ(kept["model"]["tasks"][0]["metrics"][0]["value"], 0.25);
  EXPECT_EQ(kept["model"]["throughput"]["prompt_tokens_per_second"], 100);
  EXPECT_EQ(kept["base"]["throughput"]["prompt_tokens_per_second"], 50);
  EXPECT_EQ(kept["runtime_costs"].size(), 1u);

  eval::Evaluation third = second;  // measured again: the new figures count
  third.model.throughput = throughput(120);
  third.runtime_costs = {{8, 16, "text", {}}, {16, 8, "text", {}}};
  record(third);
  kept = only();
  EXPECT_EQ(kept["model"]["throughput"]["prompt_tokens_per_second"], 120);
  EXPECT_EQ(kept["base"]["throughput"]["prompt_tokens_per_second"], 50);
  EXPECT_EQ(kept["runtime_costs"].size(), 2u);
}

TEST_F(EvaluationRecordsTest, OtherModelsDataAndSettingsTakeNothingOver) {
  eval::Evaluation first{model_result("model", 0.5), model_result("base", 0.75), {}};
  first.model.throughput = throughput(100);
  first.runtime_costs.push_back({8, 16, "text", {}});
  record(first);
  eval::Evaluation other_data{model_result("model", 0.5), model_result("base", 0.75), {}};
  other_data.model.tasks[0].data_sha256 = "e";
  record(other_data);
  const eval::Evaluation other_type{model_result("model", 0.5, "bfloat16"), model_result("base", 0.75), {}};
  record(other_type);
  EvaluatedModel other_weights = evaluated("model");
  other_weights.hash = "others";
  record_evaluation(store_, std::nullopt, {model_result("model", 0.5), model_result("base", 0.75), {}}, other_weights,
                    evaluated("base"));
  record_evaluation(store_, std::nullopt, {model_result("model", 0.5), std::nullopt, {}}, evaluated("model"), std::nullopt);
  int64_t with_speed = 0;
  for (const EvaluationRecord& row : store_.list_evaluations()) with_speed += row.evaluation["model"].contains("throughput");
  EXPECT_EQ(store_.list_evaluations().size(), 5u);
  EXPECT_EQ(with_speed, 1);
}

}  // namespace
}  // namespace salient::pipeline
