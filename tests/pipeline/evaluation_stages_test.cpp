// The stages of a run that evaluate: what makes them others, and what they keep where files change under them.
#include "pipeline/evaluation_stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "pipeline/evaluation_records.h"
#include "support/model_shelf.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class EvaluationStagesTest : public testing::Test {
 protected:
  // `task`: further keys of the task, each after a comma. The stages before stand for a quantization that is there.
  std::vector<Stage> stages(const std::string& task, const RunObserver& observer = {}) const {
    const std::string data = (test::kDemoModel / "data").string();
    const RunConfig config = parse_run_config(
        ConfigNode::parse("model: {path: " + test::kDemoModel.string() +
                              "}\n"
                              "evaluation:\n"
                              "  tasks:\n"
                              "    - {name: arc, file: " +
                              data + "/arc_test.jsonl, splits: {train: " + data + "/arc_train.jsonl}, limit: 4" + task +
                              "}\n"
                              "  throughput: false\n",
                          "c.yaml"),
        "c");
    Stage quantize;
    quantize.name = "quantize";
    quantize.body = [this](StageContext&) { return StageOutputs{.paths = {{"artifact", artifact_}}}; };
    Stage detect;
    detect.name = "detect";
    detect.body = [](StageContext&) { return StageOutputs{}; };
    std::vector<Stage> all = {quantize, detect};
    for (Stage& stage : evaluate_stages(config, test::kDemoModel, "base", "artifact", observer)) all.push_back(std::move(stage));
    return all;
  }
  std::string key_of(const std::string& task) {
    const std::vector<PlannedStage> planned = plan_stages(store_, "r", stages(task));
    EXPECT_EQ(planned.size(), 3u);
    EXPECT_EQ(planned.back().name, "evaluate:arc");
    return planned.back().key;
  }

  test::TemporaryFolder folder_;
  fs::path artifact_ = folder_.path() / "artifact";
  Store store_{folder_.path() / "runs/salient.db"};
};

// The examples are drawn from the same file, so that nothing else tells the two apart.
TEST_F(EvaluationStagesTest, AnotherNumberOfExamplesIsAnotherStage) {
  const std::string three = key_of(", num_fewshot: 3");
  EXPECT_NE(key_of(", num_fewshot: 5"), three);
  EXPECT_EQ(key_of(", num_fewshot: 3"), three);
  EXPECT_NE(key_of(""), three);
}

// Without it the settings are what they were before, and what is done stays done.
TEST_F(EvaluationStagesTest, ANumberOfExamplesThatIsNotGivenIsNoSetting) {
  EXPECT_FALSE(stages("").back().settings.contains("num_fewshot"));
  EXPECT_EQ(stages(", num_fewshot: 0").back().settings.at("num_fewshot"), 0);
}

TEST_F(EvaluationStagesTest, FiguresOfFilesThatChangedMeanwhileAreNotKept) {
  test::put_demo(artifact_);
  bool replaced = false;
  RunObserver observer;
  observer.progress = [&](const std::string&, const std::string&, int64_t, int64_t) {  // both models are loaded by now
    if (replaced) return;
    replaced = true;
    std::string config = test::file_bytes(artifact_ / "config.json");
    config.insert(config.find('{') + 1, "\"note\": \"another one\", ");
    test::write_text(artifact_ / "config.json", config);
  };
  const std::vector<Stage> all = stages("", observer);
  const Error error = test::error_of([&] { run_stages(store_, "r", Json::object(), all); }, ErrorKind::kIo);
  EXPECT_THAT(error.hint(), HasSubstr("changed while it was evaluated"));
  EXPECT_TRUE(replaced);
  EXPECT_TRUE(store_.list_evaluations().empty());

  // The same stages, which still hold the model of before.
  run_stages(store_, "r", Json::object(), all);
  ASSERT_EQ(store_.list_evaluations().size(), 1u);
  EXPECT_EQ(store_.list_evaluations()[0].model_hash, model_hash(store_, artifact_));
}

}  // namespace
}  // namespace salient::pipeline
