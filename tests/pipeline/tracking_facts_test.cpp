// What is told to trackers, and the outbox in which it waits; no tracker needed.
#include "pipeline/tracking/tracking_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "common/yaml.h"
#include "eval/report.h"
#include "pipeline/run_config.h"
#include "pipeline/tracking/evaluation_metrics.h"
#include "pipeline/tracking/mlflow.h"
#include "pipeline/tracking/outbox.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

using test::error_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// The environment of the one who runs the tests must not decide what they see.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

eval::TaskResult task_result(const std::string& name, const eval::MetricResult& metric) {
  eval::TaskResult result;
  result.task = name;
  result.metrics = {metric};
  return result;
}

std::vector<TrackingTarget> read(const std::string& text) {
  return read_tracking(ConfigNode::parse(text, "c.yaml").get("tracking"));
}

TEST(TrackingTarget, ComesFromTheConfigurationOrTheEnvironment) {
  const Variable no_experiment("MLFLOW_EXPERIMENT_NAME", nullptr);
  EXPECT_TRUE(read("a: b\n").empty());
  EXPECT_TRUE(read("tracking: {mlflow: false, experiment: e}\n").empty());
  EXPECT_EQ(to_json(read("tracking: {mlflow: 'http://h:5000/', experiment: e}\n")),
            Json::parse(R"([{"sink": "mlflow", "url": "http://h:5000", "experiment": "e"}])"));
  {
    const Variable no_url("MLFLOW_TRACKING_URI", nullptr);
    const Error error = error_of([] { read("tracking:\n  mlflow: true\n"); }, ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("c.yaml:2:11"), HasSubstr("MLFLOW_TRACKING_URI is not set")));
    EXPECT_THAT(error.hint(), HasSubstr("http://HOST:PORT"));
  }
  {
    const Variable url("MLFLOW_TRACKING_URI", "https://tracker.example");
    const Variable experiment("MLFLOW_EXPERIMENT_NAME", "mine");
    EXPECT_EQ(to_json(read("tracking: {mlflow: true}\n")),
              Json::parse(R"([{"sink": "mlflow", "url": "https://tracker.example", "experiment": "mine"}])"));
    EXPECT_EQ(parse_tracking("mlflow", "", "w").url, "https://tracker.example");
    EXPECT_EQ(parse_tracking("mlflow=http://h", "e", "w").experiment, "e");
  }
  {
    const Variable url("MLFLOW_TRACKING_URI", "databricks");
    EXPECT_THAT(error_of([] { read("tracking: {mlflow: true}\n"); }, ErrorKind::kInvalidArgument).message(),
                AllOf(HasSubstr("MLFLOW_TRACKING_URI"), HasSubstr("found 'databricks'")));
  }
  EXPECT_EQ(parse_tracking("mlflow=http://h", "", "w").experiment, "salient");
}

TEST(TrackingTarget, WrongOnesAreRefusedWithTheirPlace) {
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"tracking: {mlflow: localhost:5000}\n", "c.yaml:1:20: 'tracking.mlflow': found 'localhost:5000'"},
           {"tracking: {mlflow: 5000}\n", "found '5000', expected an address such as http://localhost:5000"},
           {"tracking: {mlfow: http://h}\n", "unknown key 'tracking.mlfow'; did you mean 'mlflow'?"},
           {"tracking: {mlflow: 'http://ann:secret@h'}\n", "holds a user name or a password"}}) {
    EXPECT_THAT(error_of([&] { read(text); }, ErrorKind::kInvalidArgument).message(), HasSubstr(expected));
  }
  EXPECT_THAT(
      error_of([] { parse_tracking("mlfow=http://h", "", "salient eval: --tracking"); }, ErrorKind::kInvalidArgument).message(),
      AllOf(HasSubstr("salient eval: --tracking: "), HasSubstr("did you mean 'mlflow'?")));
  EXPECT_THAT(error_of([] { parse_tracking("mlflow=", "", "w"); }, ErrorKind::kInvalidArgument).message(),
              HasSubstr("expected mlflow=http"));
}

TEST(TrackingTarget, IsPartOfARunsConfigurationButNotOfWhatTheRunIs) {
  const auto config = [](const std::string& more) {
    return to_json(parse_run_config(ConfigNode::parse("model: {path: m}\n" + more, "c.yaml"), "c"));
  };
  const Json with = config("tracking: {mlflow: 'http://h:1', experiment: e}\n");
  EXPECT_EQ(with.at("tracking").at(0).at("url"), "http://h:1");
  EXPECT_EQ(run_identity("n", with, {"k"}), run_identity("n", config(""), {"k"}));
  EXPECT_NE(run_identity("n", with, {"k"}), run_identity("n", with, {"l"}));
  EXPECT_NE(run_identity("n", with, {"k"}), run_identity("other", with, {"k"}));
  EXPECT_NE(run_identity("n", with, {"k"}), run_identity("n", config("quantization: {bits: 3}\n"), {"k"}));
}

TEST(TrackingFacts, ParamsAreFlat) {
  EXPECT_THAT(flat_params(Json::parse(R"({"a": {"b": 4, "c": [true, "x/y"], "d": {}}, "e": null, "f": "", "g": 0.5, "h": []})")),
              ElementsAre(Pair("a.b", "4"), Pair("a.c.0", "true"), Pair("a.c.1", "x/y"), Pair("g", "0.5")));
}

TEST(TrackingFacts, ABatchSurvivesTheStoreWithItsNaN) {
  const double infinity = std::numeric_limits<double>::infinity();
  const TrackingBatch batch{
      "b", {{"p", "1"}}, {{"t", "ä\n"}}, {{"m", 0.1, 5}, {"nan", std::nan(""), 6}, {"up", infinity, 7}, {"down", -infinity, 8}}};
  const std::string payload = to_payload(batch);
  EXPECT_TRUE(Json::accept(payload));
  const TrackingBatch read = batch_from_payload(payload, "b");
  EXPECT_EQ(read.params, batch.params);
  EXPECT_EQ(read.tags, batch.tags);
  ASSERT_EQ(read.metrics.size(), 4u);
  EXPECT_EQ(read.metrics[0], batch.metrics[0]);
  EXPECT_TRUE(std::isnan(read.metrics[1].value));
  EXPECT_EQ(read.metrics[2], batch.metrics[2]);
  EXPECT_EQ(read.metrics[3], batch.metrics[3]);
  EXPECT_THAT(error_of([] { batch_from_payload("{\"params\": {}}", "stage x"); }, ErrorKind::kCorruption).message(),
              HasSubstr("stage x"));
}

TEST(TrackingFacts, FiguresOfAnEvaluationHaveFlatKeys) {
  eval::MetricResult metric;
  metric.metric = "acc";
  metric.value = {0.75, 0.125};
  metric.n = 12;
  metric.base.emplace();
  metric.base->base_value = 1.0;
  metric.base->difference = {-0.25, 0.0625};
  metric.base->retention = eval::Estimate{0.75, std::nullopt};
  metric.base->flips.emplace();
  metric.base->flips->lost = 3;
  eval::Evaluation evaluation;
  evaluation.model.tasks.push_back(task_result("arc", metric));
  evaluation.model.tasks.back().seconds = 2.5;
  eval::MetricResult broken;
  broken.metric = "ppl";
  broken.value.value = std::nan("");
  evaluation.model.tasks.push_back(task_result("text", broken));
  evaluation.base.emplace();
  eval::MetricResult base = metric;
  base.value = {1.0, 0.5};
  base.base.reset();
  evaluation.base->tasks.push_back(task_result("arc", base));
  // Through the store's text, in which NaN is null.
  const Json json = parse_json(dump_json(eval::to_json(evaluation)), "e");

  std::multiset<std::string> taken;
  std::map<std::string, double> found;
  for (const TrackedMetric& entry : evaluation_metrics(json, 77, taken)) {
    EXPECT_EQ(entry.time, 77);
    EXPECT_TRUE(found.emplace(entry.key, entry.value).second) << entry.key << " is there twice";
  }
  const std::map<std::string, double> expected = {{"arc/acc", 0.75},
                                                  {"arc/acc_stderr", 0.125},
                                                  {"arc/acc_n", 12},
                                                  {"arc/acc_base", 1},
                                                  {"arc/acc_base_stderr", 0.5},
                                                  {"arc/acc_difference", -0.25},
                                                  {"arc/acc_difference_stderr", 0.0625},
                                                  {"arc/acc_retention", 0.75},
                                                  {"arc/acc_flips_lost", 3},
                                                  {"arc/acc_flips_gained", 0},
                                                  {"arc/seconds", 2.5}};
  for (const auto& [key, value] : expected) {
    ASSERT_TRUE(found.contains(key)) << key;
    EXPECT_EQ(found.at(key), value) << key;
  }
  EXPECT_TRUE(std::isnan(found.at("text/ppl")));
  // The same task once more, as of other data: another name, not another point of the first one's line.
  const std::vector<TrackedMetric> again = evaluation_metrics(json, 78, taken);
  EXPECT_TRUE(std::any_of(again.begin(), again.end(), [](const TrackedMetric& entry) { return entry.key == "arc:2/acc"; }));
}

// https://github.com/mlflow/mlflow: mlflow/utils/validation.py, _VALID_PARAM_AND_METRIC_NAMES and path_not_unique.
TEST(MlflowKey, IsANameThatMlflowTakes) {
  EXPECT_EQ(mlflow_key("arc/acc_norm"), "arc/acc_norm");
  EXPECT_EQ(mlflow_key("openmath/exact_match,strict-match"), "openmath/exact_match.strict-match");
  EXPECT_EQ(mlflow_key("perplexity:2/kl"), "perplexity:2/kl");
  for (const char* name : {"a@b", "/abs//x", "../up", "a/./b", "täsk", "tab\t", "-=[]"}) {
    const std::string key = mlflow_key(name);
    EXPECT_THAT(key, ::testing::MatchesRegex("[A-Za-z0-9_.: -]+(/[A-Za-z0-9_.: -]+)*_[0-9a-f]{6}")) << name;
  }
  EXPECT_NE(mlflow_key("a@b"), mlflow_key("a#b"));
  EXPECT_EQ(mlflow_key(std::string(300, 'k')).size(), 250u);
  EXPECT_NE(mlflow_key(std::string(300, 'k')), mlflow_key(std::string(301, 'k')));
}

class Outbox : public ::testing::Test {
 protected:
  std::vector<std::string> waiting(int64_t run, bool with_rejected = false) const {
    std::vector<std::string> names;
    for (auto item = outbox_.next(run, 0, with_rejected); item; item = outbox_.next(run, item->id, with_rejected))
      names.push_back(fmt::format("{} {} {}", to_string(item->kind), item->name, item->payload));
    return names;
  }

  const TrackingTarget target_{"mlflow", "http://h", "e"};
  test::TemporaryFolder folder_;
  Store store_{folder_.path() / "salient.db"};
  TrackingOutbox outbox_{store_};
};

TEST_F(Outbox, TheSameRunIsOpenedOnce) {
  const int64_t first = store_.begin_run("a", Json::object(), "1");
  const int64_t second = store_.begin_run("a", Json::object(), "1");
  const TrackedRun run = outbox_.open(target_, "identity", "name", first, 10);
  const TrackedRun again = outbox_.open(target_, "identity", "name", second, 20);
  EXPECT_EQ(again.id, run.id);
  EXPECT_EQ(again.tracking_id, run.tracking_id);
  EXPECT_EQ(again.started, 10);
  EXPECT_EQ(again.run_id, second);
  EXPECT_NE(outbox_.open(target_, "other", "name", {}, 10).id, run.id);
  EXPECT_NE(outbox_.open({"mlflow", "http://h2", "e"}, "identity", "name", {}, 10).tracking_id, run.tracking_id);
  EXPECT_EQ(outbox_.list().size(), 3u);
}

TEST_F(Outbox, ContentWaitsOnceAndIsForgottenWhenItHasArrived) {
  const int64_t run = outbox_.open(target_, "i", "n", {}, 0).id;
  outbox_.put(run, OutboxKind::kBatch, "settings", "{}");
  outbox_.put(run, OutboxKind::kBatch, "settings", "{}");
  outbox_.put(run, OutboxKind::kBatch, "stage a", "{}");
  const std::string bytes("a\0b\xff", 4);
  outbox_.put(run, OutboxKind::kFile, "f", bytes);
  EXPECT_THAT(waiting(run), ElementsAre("batch settings {}", "batch stage a {}", "file f " + bytes));
  outbox_.mark_sent(outbox_.next(run, 0, false)->id);
  outbox_.put(run, OutboxKind::kBatch, "settings", "{}");
  EXPECT_EQ(waiting(run).size(), 2u);
  const OutboxSummary summary = outbox_.summaries().at(0);
  EXPECT_EQ(summary.sent, 1);
  EXPECT_EQ(summary.queued, 2);
  EXPECT_EQ(summary.queued_bytes, 2 + 4);
}

TEST_F(Outbox, OfAFileAndTheStatusTheNewestWaits) {
  const int64_t run = outbox_.open(target_, "i", "n", {}, 0).id;
  outbox_.put_status(run, "running", 1);
  outbox_.put(run, OutboxKind::kFile, "report.html", "one");
  outbox_.put(run, OutboxKind::kFile, "other.html", "x");
  outbox_.put(run, OutboxKind::kFile, "report.html", "two");
  outbox_.put_status(run, "finished", 2);
  EXPECT_THAT(waiting(run),
              ElementsAre("file other.html x", "file report.html two", R"(status status {"status":"finished","time":2})"));
  EXPECT_EQ(outbox_.find(run)->status, "finished");
  // A content that was there before the last one has to be sent again.
  for (auto item = outbox_.next(run, 0, false); item; item = outbox_.next(run, 0, false)) outbox_.mark_sent(item->id);
  outbox_.put(run, OutboxKind::kFile, "report.html", "one");
  EXPECT_THAT(waiting(run), ElementsAre("file report.html one"));
}

TEST_F(Outbox, WhatWasRefusedWaitsOnlyForThoseWhoAsk) {
  const int64_t run = outbox_.open(target_, "i", "n", {}, 0).id;
  outbox_.put(run, OutboxKind::kBatch, "a", "1");
  outbox_.put(run, OutboxKind::kBatch, "b", "2");
  outbox_.mark_rejected(outbox_.next(run, 0, false)->id, "no");
  EXPECT_THAT(waiting(run), ElementsAre("batch b 2"));
  EXPECT_EQ(waiting(run, true).size(), 2u);
  outbox_.put(run, OutboxKind::kBatch, "a", "1");  // as a resumed run does
  EXPECT_EQ(waiting(run).size(), 1u);
  EXPECT_EQ(outbox_.summaries().at(0).error, "no");
  const std::string before = outbox_.find(run)->tracking_id;
  outbox_.set_remote(run, {{"run_id", "r"}});
  outbox_.restart(run);
  EXPECT_NE(outbox_.find(run)->tracking_id, before);
  EXPECT_TRUE(outbox_.find(run)->remote.empty());
  EXPECT_TRUE(waiting(run, true).empty());
  outbox_.drop(run);
  EXPECT_TRUE(outbox_.list().empty());
}

}  // namespace
}  // namespace salient::pipeline
