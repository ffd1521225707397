// A model's files that are replaced while it is loaded, between the plan and its turn, and afterwards.
#include "pipeline/hashed_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/task_library.h"
#include "pipeline/batch/run_batch.h"
#include "support/model_shelf.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class HashedModelTest : public testing::Test {
 protected:
  // The same model with other bytes, as if another one had been written to its place.
  void replace() const {
    std::string config = test::file_bytes(model_ / "config.json");
    config.insert(config.find('{') + 1, "\"note\": \"another one\", ");
    test::write_text(model_ / "config.json", config);
  }

  test::TemporaryFolder folder_;
  fs::path model_ = test::put_demo(folder_.path() / "Models/demo");
  Store store_{folder_.path() / "s.db"};
};

TEST_F(HashedModelTest, HasTheHashOfWhatWasLoaded) {
  const std::string hash = model_hash(store_, model_);
  const HashedModel loaded = load_hashed_model(store_, model_, {});
  EXPECT_EQ(loaded.files.hash, hash);
  EXPECT_EQ(loaded.files.folder, model_);
  EXPECT_EQ(loaded.model.folder, model_);
  EXPECT_EQ(load_hashed_model(store_, model_, {}, hash).files.hash, hash);
}

TEST_F(HashedModelTest, FilesThatAreReplacedWhileTheyAreReadAreRefused) {
  const std::string before = model_hash(store_, model_);
  const auto load = [&](const fs::path& path, const eval::LanguageModelOptions& options) {
    eval::LanguageModel model = eval::load_language_model(path, options);
    replace();
    return model;
  };
  const std::string message = test::message_of([&] { load_hashed_model(store_, model_, {}, "", load); }, ErrorKind::kIo);
  EXPECT_THAT(message, AllOf(HasSubstr(model_.string()), HasSubstr(before.substr(0, 16)),
                             HasSubstr(model_hash(store_, model_).substr(0, 16)), HasSubstr("changed while it was loaded"),
                             HasSubstr("same command again")));
}

TEST_F(HashedModelTest, FilesThatWereReplacedBeforeAreNotLoaded) {
  const std::string planned = model_hash(store_, model_);
  replace();
  bool loads = false;
  const auto load = [&](const fs::path& path, const eval::LanguageModelOptions& options) {
    loads = true;
    return eval::load_language_model(path, options);
  };
  EXPECT_THAT(test::message_of([&] { load_hashed_model(store_, model_, {}, planned, load); }, ErrorKind::kIo),
              HasSubstr("since they were looked at"));
  EXPECT_FALSE(loads);
}

TEST_F(HashedModelTest, AChangeIsSeenAfterwards) {
  const HashedModel loaded = load_hashed_model(store_, model_, {});
  EXPECT_FALSE(find_change(store_, loaded.files, kWhileEvaluated));
  check_unchanged(store_, loaded.files, kWhileEvaluated);
  replace();
  ASSERT_TRUE(find_change(store_, loaded.files, kWhileEvaluated));
  EXPECT_THAT(test::message_of([&] { check_unchanged(store_, loaded.files, kWhileEvaluated); }, ErrorKind::kIo),
              HasSubstr("changed while it was evaluated"));
  fs::remove_all(model_);
  EXPECT_TRUE(find_change(store_, loaded.files, kWhileEvaluated));
}

// The plan has the hash of the files that were there when it was made.
TEST_F(HashedModelTest, ABatchKeepsNothingOfFilesThatAreNotThoseOfItsPlan) {
  const eval::TaskLibrary library = eval::TaskLibrary::bundled();
  BatchSettings settings;
  eval::TaskRequest request;
  request.task = "arc";
  request.file = test::kDemoModel / "data/arc_test.jsonl";
  request.limit = 4;
  settings.requests = {request};
  settings.options.tasks = &library;
  settings.options.throughput = false;
  settings.retries = 0;
  StoredResults results(store_, settings);
  const ModelListing listing = list_models(folder_.path() / "Models");
  const auto run = [&](std::vector<PlannedEvaluation> plan) {
    const std::vector<ModelOutcome> outcomes = run_batch(store_, "batch", std::move(plan), settings, results, {});
    EXPECT_EQ(outcomes.size(), 1u);
    return outcomes.at(0);
  };
  std::vector<PlannedEvaluation> plan = plan_evaluations(store_, listing.models, settings, results);
  replace();
  const ModelOutcome outcome = run(std::move(plan));
  EXPECT_EQ(outcome.state, OutcomeState::kFailed);
  EXPECT_THAT(outcome.reason, HasSubstr("expected those with"));
  EXPECT_TRUE(store_.list_evaluations().empty());
  EXPECT_TRUE(store_.list_answering_models().empty());

  EXPECT_EQ(run(plan_evaluations(store_, listing.models, settings, results)).state, OutcomeState::kDone);
  ASSERT_EQ(store_.list_evaluations().size(), 1u);
  EXPECT_EQ(store_.list_evaluations()[0].model_hash, model_hash(store_, model_));
}

}  // namespace
}  // namespace salient::pipeline
