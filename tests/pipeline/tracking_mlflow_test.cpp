// Results in a real MLflow server: what a run tells it, and that nothing is lost or told twice when the server is away, broken or
// slow, or the program is killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <thread>

#include "common/file.h"
#include "eval/report.h"
#include "pipeline/tracking/background_sender.h"
#include "pipeline/tracking/send.h"
#include "pipeline/tracking/tracking_facts.h"
#include "support/demo_run.h"
#include "support/mlflow_server.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"
#include "support/tiny_server.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using test::TinyRequest;
using test::TinyServer;
using test::values_of;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

// One for all tests, which have experiments of their own.
test::MlflowServer* server = nullptr;

class TrackingMlflow : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    // The environment of the one who runs the tests must not decide where they go.
    for (const char* name : {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_USERNAME",
                             "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "http_proxy", "https_proxy", "all_proxy"})
      ::unsetenv(name);
    ::setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5", 1);
    const auto python = test::MlflowServer::find_python(SALIENT_SOURCE_DIR, reason_);
    if (python) server = new test::MlflowServer(*python);
  }
  static void TearDownTestSuite() {
    delete server;
    server = nullptr;
  }
  void SetUp() override {
    if (server == nullptr) GTEST_SKIP() << reason_;
    experiment_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  TrackingTarget target(const std::string& url = server->url()) const { return {"mlflow", url, experiment_}; }
  Json only_run() const {
    const std::vector<Json> runs = server->runs(experiment_);
    EXPECT_EQ(runs.size(), 1u);
    return runs.empty() ? Json::parse(R"({"info": {"run_id": "", "status": "", "artifact_uri": ":/"}, "data": {}})") : runs.front();
  }

  inline static std::string reason_;
  std::string experiment_;
  test::TemporaryFolder folder_;
};

Json evaluation_json(double value) {
  eval::MetricResult metric;
  metric.metric = "exact_match,strict-match";
  metric.value = {value, 0.5};
  metric.n = 4;
  eval::Evaluation evaluation;
  evaluation.model.model = "m";
  eval::TaskResult& task = evaluation.model.tasks.emplace_back();
  task.task = "openmath";
  task.settings = {{"limit", 4}};
  task.metrics = {metric};
  return eval::to_json(evaluation);
}

// A run as the stage engine stores it, without the work.
int64_t begin_run(Store& store, const Json& config = {{"quantization", {{"bits", 4}}}}) {
  return store.begin_run("synthetic", config, "0.1.0");
}

void add_stage(Store& store, int64_t run, const std::string& name, const Json& values) {
  const int64_t stage = store.begin_stage(run, name, "key of " + name, Json::object());
  store.finish_stage(stage, "done", {{"paths", Json::object()}, {"values", values}}, 1.5);
}

// In front of the real server, with the tempers of a network.
class Gate {
 public:
  enum class Temper { kForward, kError, kHang, kHalf, kLoseAnswer };

  explicit Gate(const std::string& upstream)
      : upstream_(upstream), server_([this](const TinyRequest& request) { return answer(request); }) {}

  void set(Temper temper, std::string only = "") {
    const std::lock_guard lock(mutex_);
    only_ = std::move(only);
    temper_ = temper;
  }
  std::string url() const { return server_.url(); }
  std::vector<TinyRequest> requests() const { return server_.requests(); }

 private:
  Temper temper_for(const std::string& target) {
    const std::lock_guard lock(mutex_);
    return target.find(only_) != std::string::npos ? temper_ : Temper::kForward;
  }
  std::optional<std::string> answer(const TinyRequest& request) {
    const Temper temper = temper_for(request.target);
    if (temper == Temper::kError) return test::tiny_answer(503, "<html>Service Unavailable</html>", "text/html");
    if (temper == Temper::kHang) return std::nullopt;
    const HttpResponse response =
        client_.send({request.method, upstream_ + request.target, request.body, request.header("Content-Type")});
    const std::string whole = test::tiny_answer(response.status, response.body, response.content_type);
    if (temper == Temper::kLoseAnswer) return "";
    if (temper == Temper::kForward) return whole;
    // Without a body there is no half of it: nothing comes back.
    return response.body.empty() ? "" : whole.substr(0, whole.size() - response.body.size() / 2 - 1);
  }

  std::string upstream_;
  std::mutex mutex_;
  std::string only_;
  Temper temper_ = Temper::kForward;
  HttpClient client_;
  TinyServer server_;
};

TEST_F(TrackingMlflow, SettingsFiguresFilesAndStatusArrive) {
  Store store(folder_.path() / "salient.db");
  const int64_t run =
      begin_run(store, {{"quantization", {{"bits", 4}, {"ignore", {"lm_head"}}}}, {"model", {{"path", "models/demo"}}}});
  queue_run(store, target(), run, "i");
  EXPECT_EQ(TrackingSender(store).send().left, 0);
  EXPECT_EQ(only_run().at("info").at("status"), "RUNNING");
  add_stage(store, run, "quantize", {{"error_ratio", 0.25}});
  add_stage(store, run, "evaluate:openmath", {{"evaluation", evaluation_json(0.75)}});
  add_stage(store, run, "evaluate:nan", {{"evaluation", evaluation_json(std::nan(""))}});
  store.finish_run(run, "done");
  write_file(folder_.path() / fmt::format("run_{}.html", run), "<p>report</p>");
  queue_run(store, target(), run, "i");
  const SendReport report = TrackingSender(store).send();
  EXPECT_EQ(report.rejected, 0);
  EXPECT_EQ(report.left, 0);
  EXPECT_THAT(report.errors, ::testing::IsEmpty());

  const Json told = only_run();
  EXPECT_EQ(told.at("info").at("status"), "FINISHED");
  EXPECT_EQ(told.at("info").at("run_name"), "synthetic");
  const auto params = values_of(told, "params");
  EXPECT_EQ(params.at("quantization.bits"), "4");
  EXPECT_EQ(params.at("quantization.ignore.0"), "lm_head");
  const auto tags = values_of(told, "tags");
  EXPECT_EQ(tags.at("salient.version"), "0.1.0");
  EXPECT_EQ(tags.at("salient.model"), "models/demo");
  EXPECT_EQ(tags.at("salient.config_sha256").get<std::string>().size(), 64u);
  EXPECT_TRUE(tags.contains("mlflow.note.content"));
  const auto metrics = values_of(told, "metrics");
  EXPECT_EQ(metrics.at("openmath/exact_match.strict-match"), 0.75);
  EXPECT_EQ(metrics.at("openmath/exact_match.strict-match_stderr"), 0.5);
  EXPECT_EQ(metrics.at("openmath:2/exact_match.strict-match"), "NaN");
  EXPECT_EQ(metrics.at("quantize/error_ratio"), 0.25);
  EXPECT_EQ(metrics.at("seconds/quantize"), 1.5);
  EXPECT_EQ(metrics.at("seconds/total"), 4.5);
  const std::string id = told.at("info").at("run_id");
  EXPECT_THAT(server->files(id), IsSupersetOf({"config.json", "results.json", "report.html"}));
  EXPECT_EQ(server->file(told, "report.html"), "<p>report</p>");
  EXPECT_EQ(parse_json(server->file(told, "config.json"), "config").at("quantization").at("bits"), 4);
  EXPECT_EQ(server->history(id, "openmath/exact_match.strict-match").size(), 1u);
}

TEST_F(TrackingMlflow, FailedDiedAndResumedRunsSaySo) {
  const fs::path path = folder_.path() / "salient.db";
  int64_t failed = 0;
  {
    Store store(path);
    failed = begin_run(store);
    store.finish_run(failed, "failed", "stage quantize: it broke");
    queue_run(store, target(), failed, "failed one");
    TrackingSender(store).send();
    EXPECT_EQ(only_run().at("info").at("status"), "FAILED");
    EXPECT_EQ(values_of(only_run(), "tags").at("salient.error"), "stage quantize: it broke");
    queue_run(store, target(), begin_run(store), "failed one");  // once more
    TrackingSender(store).send();
    EXPECT_EQ(only_run().at("info").at("status"), "RUNNING");
  }  // and with the store goes the process, as far as others can see
  Store store(path);
  TrackingSender(store).send();
  EXPECT_EQ(only_run().at("info").at("status"), "KILLED");
  const int64_t last = begin_run(store);
  queue_run(store, target(), last, "failed one");
  store.finish_run(last, "done");  // and dies before it tells
  TrackingSender(store).send();
  EXPECT_EQ(only_run().at("info").at("status"), "FINISHED");
}

// Each trouble at each step: an answer that was lost means that the server has done it.
TEST_F(TrackingMlflow, WhatCouldNotBeSentArrivesLaterOnce) {
  Gate gate(server->url());
  using Temper = Gate::Temper;
  size_t made = 0;
  for (const std::string step : {"experiments/", "runs/search", "runs/create", "log-batch", "mlflow-artifacts", "runs/update"}) {
    for (const Temper temper : {Temper::kError, Temper::kHalf, Temper::kLoseAnswer}) {
      SCOPED_TRACE(fmt::format("{} {}", step, static_cast<int>(temper)));
      Store store(folder_.path() / fmt::format("{}.db", made++));
      const int64_t run = begin_run(store);
      add_stage(store, run, "evaluate:openmath", {{"evaluation", evaluation_json(0.75)}});
      store.finish_run(run, "done");
      const int64_t id = queue_run(store, target(gate.url()), run, "i");
      gate.set(temper, step);
      const SendReport vain = TrackingSender(store).send();
      EXPECT_GT(vain.left, 0);
      EXPECT_EQ(vain.rejected, 0);
      ASSERT_FALSE(vain.errors.empty());
      EXPECT_THAT(vain.errors.front(), HasSubstr(gate.url()));

      gate.set(Temper::kForward);
      EXPECT_EQ(TrackingSender(store).send().left, 0);
      const std::vector<Json> runs = server->runs(experiment_);
      ASSERT_EQ(runs.size(), made) << "a lost answer made a second run";
      const std::string remote = TrackingOutbox(store).find(id)->remote.at("run_id");
      const auto told =
          std::find_if(runs.begin(), runs.end(), [&](const Json& entry) { return entry.at("info").at("run_id") == remote; });
      ASSERT_NE(told, runs.end());
      EXPECT_EQ(told->at("info").at("status"), "FINISHED");
      EXPECT_EQ(server->history(remote, "openmath/exact_match.strict-match").size(), 1u);
      EXPECT_THAT(server->files(remote), IsSupersetOf({"config.json", "results.json"}));

      const size_t before = gate.requests().size();
      queue_run(store, target(gate.url()), run, "i");
      EXPECT_EQ(TrackingSender(store).send().sent, 0);
      EXPECT_EQ(gate.requests().size(), before) << "the same was sent again";
    }
  }
}

TEST_F(TrackingMlflow, AServerThatHangsCostsOneRequest) {
  Gate gate(server->url());
  gate.set(Gate::Temper::kHang);
  Store store(folder_.path() / "salient.db");
  for (int i = 0; i < 3; ++i) {
    const int64_t run = begin_run(store);
    queue_run(store, target(gate.url()), run, std::to_string(i));
    store.finish_run(run, "done");
  }
  const auto start = std::chrono::steady_clock::now();
  TrackingSender sender(store);
  EXPECT_GT(sender.send().left, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(8));
  EXPECT_EQ(gate.requests().size(), 1u);
  {  // In the background it costs nothing but the wait that is asked for.
    BackgroundSender background(store.path());
    background.wake();
    background.finish(std::chrono::milliseconds(200));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  gate.set(Gate::Temper::kForward);
  EXPECT_EQ(TrackingSender(store).send().left, 0);
  EXPECT_EQ(server->runs(experiment_).size(), 3u);
}

TEST_F(TrackingMlflow, LargeBatchesAreCutAsTheServerWantsThem) {
  Store store(folder_.path() / "salient.db");
  TrackingOutbox outbox(store);
  const int64_t id = outbox.open(target(), "i", "large", {}, 1'700'000'000'000).id;
  TrackingBatch batch{"large", {}, {}, {}};
  for (int i = 0; i < 250; ++i) {
    batch.params[fmt::format("p{}", i)] = std::string(i == 0 ? 7000 : 10, 'p') + "ä";
    batch.tags[fmt::format("t{}", i)] = std::string(i == 0 ? 9000 : 4000, 't');
  }
  for (int i = 0; i < 2500; ++i) batch.metrics.push_back({fmt::format("task {}/acc@{}", i % 7, i), i / 8.0, 1'700'000'000'000});
  batch.metrics.push_back({"up", std::numeric_limits<double>::infinity(), 1'700'000'000'000});
  for (int i = 0; i < 2; ++i) {  // the second time over what is there
    outbox.put(id, OutboxKind::kBatch, fmt::format("large {}", i), to_payload(batch));
    const SendReport report = TrackingSender(store).send();
    EXPECT_EQ(report.rejected, 0) << outbox.summaries().at(0).error;
    EXPECT_EQ(report.left, 0) << outbox.summaries().at(0).error;
  }
  const Json told = only_run();
  const auto params = values_of(told, "params");
  EXPECT_EQ(params.size(), 250u);
  EXPECT_EQ(params.at("p0"), std::string(5999, 'p') + "…");
  EXPECT_EQ(params.at("p1"), std::string(10, 'p') + "ä");
  EXPECT_EQ(values_of(told, "metrics").size(), 2501u);
  EXPECT_EQ(values_of(told, "metrics").at("up"), std::numeric_limits<double>::max());  // as MLflow keeps it
  EXPECT_EQ(values_of(told, "tags").at("salient.t7"), std::string(4000, 't'));
}

TEST_F(TrackingMlflow, WhatTheServerRefusesDoesNotKeepBackTheRest) {
  Store store(folder_.path() / "salient.db");
  TrackingOutbox outbox(store);
  const int64_t id = outbox.open(target(), "i", "n", {}, 1).id;
  outbox.put(id, OutboxKind::kBatch, "a", to_payload({"a", {{"p", "1"}}, {}, {}}));
  outbox.put(id, OutboxKind::kBatch, "b", to_payload({"b", {{"p", "2"}}, {}, {}}));  // parameters do not change
  outbox.put(id, OutboxKind::kBatch, "c", to_payload({"c", {{"q", "3"}}, {}, {}}));
  const SendReport report = TrackingSender(store).send();
  EXPECT_EQ(report.sent, 2);
  EXPECT_EQ(report.rejected, 1);
  EXPECT_EQ(report.left, 0);
  EXPECT_THAT(outbox.summaries().at(0).error,
              AllOf(HasSubstr("INVALID_PARAMETER_VALUE"), HasSubstr("Changing param values is not allowed")));
  EXPECT_EQ(values_of(only_run(), "params").at("p"), "1");
  EXPECT_EQ(values_of(only_run(), "params").at("q"), "3");
  EXPECT_EQ(TrackingSender(store).send().rejected, 0) << "it was asked again unasked";
  EXPECT_EQ(TrackingSender(store).send({std::nullopt, true}).rejected, 1);

  server->post("runs/delete", {{"run_id", outbox.find(id)->remote.at("run_id")}});
  outbox.put(id, OutboxKind::kBatch, "d", to_payload({"d", {{"r", "4"}}, {}, {}}));
  EXPECT_EQ(TrackingSender(store).send().rejected, 1);
  EXPECT_THAT(outbox.summaries().at(0).error, HasSubstr("Current state is deleted"));
}

TEST_F(TrackingMlflow, ADeletedExperimentIsSaidAndEverythingWaits) {
  Store store(folder_.path() / "salient.db");
  const Json made = server->post("experiments/create", {{"name", experiment_}});
  server->post("experiments/delete", {{"experiment_id", made.at("experiment_id")}});
  const int64_t run = begin_run(store);
  queue_run(store, target(), run, "i");
  const SendReport report = TrackingSender(store).send();
  EXPECT_EQ(report.sent, 0);
  EXPECT_GT(report.left, 0);
  ASSERT_EQ(report.errors.size(), 1u);
  EXPECT_THAT(report.errors.front(),
              AllOf(HasSubstr("experiment '" + experiment_ + "' was deleted"), HasSubstr("tracking.experiment")));
  server->post("experiments/restore", {{"experiment_id", made.at("experiment_id")}});
  EXPECT_EQ(TrackingSender(store).send().left, 0);
  EXPECT_EQ(only_run().at("info").at("run_name"), "synthetic");
}

// Many processes on one store: one run in the tracker, everything once.
TEST_F(TrackingMlflow, SeveralSendersShareTheWork) {
  const fs::path path = folder_.path() / "salient.db";
  Store store(path);
  const int64_t run = begin_run(store);
  for (int i = 0; i < 12; ++i) add_stage(store, run, fmt::format("stage{}", i), {{"figure", i}});
  queue_run(store, target(), run, "i");
  std::atomic<int64_t> sent{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Store own(path);
      sent += TrackingSender(own).send().sent;
    });
  }
  for (std::thread& thread : threads) thread.join();
  const OutboxSummary summary = TrackingOutbox(store).summaries().at(0);
  EXPECT_EQ(summary.queued, 0);
  EXPECT_EQ(sent, summary.sent);
  EXPECT_EQ(values_of(only_run(), "metrics").at("stage11/figure"), 11);
}

// ---- the program ----

std::string tracking_block(const std::string& url, const std::string& experiment) {
  return "tracking: {mlflow: '" + url + "', experiment: " + experiment + "}\n";
}

TEST_F(TrackingMlflow, ARunIsSeenThereWithAllItsResults) {
  test::write_demo_config(folder_.path(), tracking_block(server->url(), experiment_));
  const test::ProgramResult result = test::run_program({"run", "run.yaml", "--json"}, folder_.path());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json told = only_run();
  const std::string id = told.at("info").at("run_id");
  EXPECT_THAT(result.err, HasSubstr("tracking: " + server->url() + "/#/experiments/"));
  const Json tracking = parse_json(result.out, "run").at("tracking").at(0);
  EXPECT_THAT(tracking.at("link").get<std::string>(), ::testing::EndsWith("/runs/" + id));
  EXPECT_EQ(tracking.at("queued"), 0);
  EXPECT_EQ(tracking.at("rejected"), 0);

  EXPECT_EQ(told.at("info").at("status"), "FINISHED");
  EXPECT_EQ(values_of(told, "params").at("quantization.group_size"), "128");
  EXPECT_EQ(values_of(told, "tags").at("salient.artifact"), test::kDemoArtifact);
  EXPECT_THAT(values_of(told, "tags").at("mlflow.note.content").get<std::string>(), HasSubstr(test::kDemoArtifact));
  const auto metrics = values_of(told, "metrics");
  for (const char* key : {"seconds/quantize", "seconds/total", "size/model_bytes", "size/base_bytes", "calibrate/tokens",
                          "arc/acc_stderr", "arc/acc_base", "arc/acc_retention", "arc/acc_flips_lost", "perplexity/kl_divergence"})
    EXPECT_THAT(metrics, Contains(::testing::Key(key)));
  // The same figures as the store has.
  size_t compared = 0;
  for (const Json& row :
       parse_json(test::run_program({"results", "--json", "--model", test::kDemoArtifact}, folder_.path()).out, "results")) {
    const std::string key = row.at("task").get<std::string>() + "/" + row.at("metric").get<std::string>();
    if (!metrics.contains(key)) continue;
    EXPECT_EQ(metrics.at(key), row.at("value")) << key;
    ++compared;
  }
  EXPECT_GT(compared, 10u);
  EXPECT_THAT(server->files(id), IsSupersetOf({"artifact_sha256.json", "calibration_record.json", "config.json",
                                               "quantization_metadata.json", "report.html", "results.json"}));
  EXPECT_EQ(server->file(told, "report.html"), read_text_file(folder_.path() / "runs/run_1.html"));

  // Again: nothing to do, nothing to tell.
  ASSERT_EQ(test::run_program({"run", "run.yaml"}, folder_.path()).exit_code, 0);
  EXPECT_EQ(only_run().at("info").at("end_time"), told.at("info").at("end_time"));
  EXPECT_EQ(server->history(id, "arc/acc").size(), 1u);

  const test::ProgramResult status = test::run_program({"tracking", "status", "--json"}, folder_.path());
  const Json line = parse_json(status.out, "status").at(0);
  EXPECT_EQ(line.at("queued"), 0);
  EXPECT_EQ(line.at("status"), "finished");

  // And once more, to another experiment, from what the store has.
  const test::ProgramResult log = test::run_program(
      {"tracking", "log", "--run", "1", "--tracking", "mlflow=" + server->url(), "--tracking-experiment", experiment_ + " later"},
      folder_.path());
  EXPECT_EQ(log.exit_code, 0) << log.err;
  const std::vector<Json> later = server->runs(experiment_ + " later");
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(values_of(later.front(), "metrics"), metrics);
}

TEST_F(TrackingMlflow, AKilledRunGoesOnInTheSameRunThere) {
  test::write_demo_config(folder_.path(), tracking_block(server->url(), experiment_));
  const test::ProgramResult killed =
      test::run_program(test::ProgramCall{{"run", "run.yaml"}, folder_.path(), {}, [](const std::string& err) {
                                            return err.find("stage evaluate:arc: ") != std::string::npos;
                                          }});
  ASSERT_TRUE(killed.killed) << killed.err;
  ASSERT_EQ(test::run_program({"tracking", "send"}, folder_.path()).exit_code, 0);
  EXPECT_EQ(only_run().at("info").at("status"), "KILLED");
  EXPECT_THAT(values_of(only_run(), "metrics"), Contains(::testing::Key("seconds/quantize")));
  EXPECT_THAT(values_of(only_run(), "metrics"), Not(Contains(::testing::Key("arc/acc"))));

  ASSERT_EQ(test::run_program({"run", "run.yaml"}, folder_.path()).exit_code, 0);
  const Json told = only_run();
  EXPECT_EQ(told.at("info").at("status"), "FINISHED");
  for (const char* key : {"seconds/quantize", "perplexity/perplexity", "arc/acc"})
    EXPECT_EQ(server->history(told.at("info").at("run_id"), key).size(), 1u) << key;
}

TEST_F(TrackingMlflow, ARunDoesNotMindThatTheServerIsAway) {
  Gate gate(server->url());
  gate.set(Gate::Temper::kError);
  test::write_demo_config(folder_.path(), tracking_block(gate.url(), experiment_));
  const test::ProgramResult result = test::run_program({"run", "run.yaml"}, folder_.path());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("wait in the store, as GET " + gate.url()), HasSubstr("answered 503"),
                                HasSubstr("salient tracking send")));
  EXPECT_TRUE(server->runs(experiment_).empty());
  const test::ProgramResult vain = test::run_program({"tracking", "send"}, folder_.path());
  EXPECT_EQ(vain.exit_code, 6) << vain.out;
  EXPECT_THAT(vain.err, HasSubstr("answered 503"));

  gate.set(Gate::Temper::kForward);
  const test::ProgramResult sent = test::run_program({"tracking", "send"}, folder_.path());
  EXPECT_EQ(sent.exit_code, 0) << sent.err;
  EXPECT_THAT(sent.out, HasSubstr(" 0 waiting"));
  const Json told = only_run();
  EXPECT_EQ(told.at("info").at("status"), "FINISHED");
  EXPECT_EQ(server->file(told, "report.html"), read_text_file(folder_.path() / "runs/run_1.html"));
}

TEST_F(TrackingMlflow, EvalTellsWithoutAConfiguration) {
  const std::string data = (test::kDemoModel / "data/arc_test.jsonl").string();
  const std::vector<std::string> words = {
      "eval", test::kDemoModel.string(), "--tasks",    "arc",   "--data", "arc=" + data, "--limit",
      "12",   "--no-throughput",         "--tracking", "mlflow"};
  const std::map<std::string, std::string> environment = {{"MLFLOW_TRACKING_URI", server->url()},
                                                          {"MLFLOW_EXPERIMENT_NAME", experiment_}};
  const test::ProgramResult result = test::run_program(words, folder_.path(), environment);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json told = only_run();
  EXPECT_EQ(told.at("info").at("status"), "FINISHED");
  EXPECT_EQ(values_of(told, "params").at("arc.limit"), "12");
  EXPECT_THAT(values_of(told, "metrics"), AllOf(Contains(::testing::Key("arc/acc")), Contains(::testing::Key("arc/acc_stderr")),
                                                Contains(::testing::Key("size/model_bytes"))));
  EXPECT_THAT(server->files(told.at("info").at("run_id")), IsSupersetOf({"report.html", "results.json"}));
  std::vector<std::string> without_store = words;
  without_store.push_back("--no-store");
  const test::ProgramResult refused = test::run_program(without_store, folder_.path(), environment);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--tracking with --no-store"));
}

}  // namespace
}  // namespace salient::pipeline
