// What a batch takes from the store, and what it evaluates again because the model's small files are others.
#include "pipeline/batch/stored_results.h"

#include <gtest/gtest.h>

#include "eval/task_library.h"
#include "pipeline/batch/run_batch.h"
#include "support/model_shelf.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

// Models/{demo, tuned}, the second compared with the first.
class StoredResultsTest : public testing::Test {
 protected:
  StoredResultsTest() {
    test::put_demo(models_ / "demo");
    test::put_demo(models_ / "tuned");
    change(models_ / "tuned/config.json", "note", "no copy of the demo");
    eval::TaskRequest request;
    request.task = "arc";
    request.file = test::kDemoModel / "data/arc_test.jsonl";
    request.limit = 4;
    settings_.requests = {request};
    settings_.options.tasks = &library_;
    settings_.options.throughput = false;
    settings_.options.apply_chat_template = true;
    settings_.bases = {{"tuned", models_ / "demo"}};
    settings_.retries = 0;
  }

  static void change(const fs::path& file, const std::string& key, const Json& value) {
    Json json = parse_json(test::file_bytes(file), file.string());
    json[key] = value;
    test::write_text(file, dump_json(json));
  }
  void change_template(const std::string& model) const {
    const fs::path file = models_ / model / "tokenizer_config.json";
    const Json json = parse_json(test::file_bytes(file), file.string());
    change(file, "chat_template", json.at("chat_template").get<std::string>() + "{# another one #}");
  }

  std::vector<PlannedEvaluation> plan() {
    StoredResults results(store_, settings_);
    return plan_evaluations(store_, list_models(models_).models, settings_, results);
  }
  std::map<std::string, PlannedState> states() {
    std::map<std::string, PlannedState> out;
    for (const PlannedEvaluation& planned : plan()) out[planned.model.label] = planned.state;
    return out;
  }
  void evaluate() {
    StoredResults results(store_, settings_);
    for (const ModelOutcome& outcome : run_batch(store_, "batch", plan(), settings_, results, {}))
      EXPECT_TRUE(outcome.state == OutcomeState::kDone || outcome.state == OutcomeState::kUpToDate) << outcome.reason;
  }

  using States = std::map<std::string, PlannedState>;
  const States kAllUpToDate = {{"demo", PlannedState::kUpToDate}, {"tuned", PlannedState::kUpToDate}};

  test::TemporaryFolder folder_;
  fs::path models_ = folder_.path() / "Models";
  Store store_{folder_.path() / "s.db"};
  eval::TaskLibrary library_ = eval::TaskLibrary::bundled();
  BatchSettings settings_;
};

TEST_F(StoredResultsTest, AnotherChatTemplateIsEvaluatedAgain) {
  EXPECT_EQ(states(), (States{{"demo", PlannedState::kEvaluate}, {"tuned", PlannedState::kEvaluate}}));
  evaluate();
  EXPECT_EQ(states(), kAllUpToDate);
  change_template("tuned");
  EXPECT_EQ(states(), (States{{"demo", PlannedState::kUpToDate}, {"tuned", PlannedState::kEvaluate}}));
  evaluate();
  EXPECT_EQ(states(), kAllUpToDate);
  change_template("demo");  // what the other one is compared with, too
  EXPECT_EQ(states(), (States{{"demo", PlannedState::kEvaluate}, {"tuned", PlannedState::kEvaluate}}));
  evaluate();
  EXPECT_EQ(states(), kAllUpToDate);
}

TEST_F(StoredResultsTest, ATemplateThatIsNotAppliedChangesNothing) {
  settings_.options.apply_chat_template = false;
  evaluate();
  EXPECT_EQ(states(), kAllUpToDate);
  change_template("demo");
  change_template("tuned");
  EXPECT_EQ(states(), kAllUpToDate);
}

// Whoever evaluates it hears what is wrong; the plan does not fail over it.
TEST_F(StoredResultsTest, ATemplateThatIsGoneFitsNoResult) {
  evaluate();
  change(models_ / "tuned/tokenizer_config.json", "chat_template", Json());
  EXPECT_EQ(states().at("tuned"), PlannedState::kEvaluate);
  change(models_ / "tuned/tokenizer_config.json", "chat_template", "{% if %}");
  EXPECT_EQ(states().at("tuned"), PlannedState::kEvaluate);
}

}  // namespace
}  // namespace salient::pipeline
