#include "pipeline/tracking/tracking_facts.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "eval/read_report.h"
#include "eval/verdict.h"
#include "pipeline/report/report_data.h"
#include "pipeline/report/report_page.h"
#include "pipeline/tracking/evaluation_metrics.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// "2025-01-31T08:30:00Z" in ms since 1970; 0 for an empty text.
int64_t milliseconds(const std::string& utc) {
  std::tm parts{};
  if (::strptime(utc.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts) == nullptr) return 0;
  return static_cast<int64_t>(::timegm(&parts)) * 1000;
}

Json number_json(double value) {
  if (std::isfinite(value)) return value;
  if (std::isnan(value)) return "NaN";
  return value > 0 ? "Infinity" : "-Infinity";
}

double number_from_json(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "NaN") return std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  return value == "-Infinity" ? -infinity : infinity;
}

void flatten(const Json& value, const std::string& key, std::map<std::string, std::string>& out) {
  const auto below = [&](const std::string& part) { return key.empty() ? part : key + "." + part; };
  if (value.is_object()) {
    for (const auto& [part, child] : value.items()) flatten(child, below(part), out);
  } else if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) flatten(value[i], below(std::to_string(i)), out);
  } else if (value.is_string()) {
    if (!value.get_ref<const std::string&>().empty()) out[key] = value.get<std::string>();
  } else if (!value.is_null()) {
    out[key] = dump_json(value);
  }
}

// The configuration without what is told about it to whom: a run does not become another one when its tracker moves.
Json without_tracking(Json config) {
  config.erase("tracking");
  return config;
}

std::map<std::string, std::string> general_tags(std::string_view command, const std::string& version) {
  std::map<std::string, std::string> tags = {{"version", version}, {"command", std::string(command)}};
  for (const char* variable : {"LOGNAME", "USER"}) {
    if (const char* user = std::getenv(variable); user != nullptr && *user != 0) tags["user"] = user;
  }
  return tags;
}

// A stage that was found up to date stands for the one that did the work.
StageRecord worked(const Store& store, StageRecord stage) {
  if (stage.status != "up_to_date") return stage;
  if (const auto done = store.find_done_stage(stage.key)) return *done;
  return stage;
}

std::optional<ArtifactRecord> artifact_of(const Store& store, const std::string& path) {
  const std::vector<ArtifactRecord> found = store.list_artifacts({"", fs::absolute(path).lexically_normal().string(), 1});
  if (found.empty()) return std::nullopt;
  return found.front();
}

void add_artifact(const Store& store, const std::string& path, int64_t time, TrackingBatch& batch, TrackingFacts& facts) {
  const std::optional<ArtifactRecord> artifact = artifact_of(store, path);
  if (!artifact) return;
  batch.tags["artifact"] = artifact->name;
  batch.tags["artifact_path"] = artifact->path;
  batch.tags["format"] = artifact->format;
  batch.tags["method"] = artifact->method;
  batch.tags["dataset"] = artifact->dataset;
  batch.tags["base_model"] = artifact->base_model_path;
  batch.tags["base_model_sha256"] = artifact->base_model_hash;
  batch.metrics.push_back({"size/artifact_bytes", static_cast<double>(artifact->bytes), time});
  facts.files.push_back({"quantization_metadata.json", dump_json(artifact->metadata, 2)});
  facts.files.push_back({"artifact_sha256.json", dump_json(artifact->files, 2)});
}

void add_sizes(const EvaluationRecord& evaluation, int64_t time, TrackingBatch& batch) {
  if (!evaluation.model_hash.empty()) batch.tags["model_sha256"] = evaluation.model_hash;
  batch.metrics.push_back({"size/model_bytes", static_cast<double>(evaluation.model_bytes), time});
  if (evaluation.base_bytes <= 0) return;
  batch.metrics.push_back({"size/base_bytes", static_cast<double>(evaluation.base_bytes), time});
  batch.metrics.push_back(
      {"size/ratio", static_cast<double>(evaluation.model_bytes) / static_cast<double>(evaluation.base_bytes), time});
}

struct StageFacts {
  double seconds = 0;
  int64_t last = 0;  // ms since 1970, of the latest stage
  std::string artifact;
  eval::Evaluation evaluation;
  Json results = Json::array();
};

void add_stage(const Store& store, const StageRecord& record, std::multiset<std::string>& tasks, StageFacts& all,
               TrackingFacts& facts) {
  const StageRecord stage = worked(store, record);
  const int64_t time = milliseconds(stage.finished);
  TrackingBatch batch{"stage " + stage.name, {}, {}, {{"seconds/" + stage.name, stage.seconds, time}}};
  all.seconds += stage.seconds;
  all.last = std::max(all.last, time);
  const Json values = stage.outputs.value("values", Json::object());
  if (values.contains("evaluation")) {
    const Json& evaluation = values.at("evaluation");
    for (TrackedMetric& metric : evaluation_metrics(evaluation, time, tasks)) batch.metrics.push_back(std::move(metric));
    eval::append(all.evaluation, eval::evaluation_from_json(evaluation, stage.name));
    all.results.push_back(evaluation);
  } else {
    for (const auto& [key, value] : values.items()) {
      if (value.is_number() && key != "calibration_id")
        batch.metrics.push_back({fmt::format("{}/{}", stage.name, key), value.get<double>(), time});
    }
  }
  const Json paths = stage.outputs.value("paths", Json::object());
  if (paths.contains("artifact")) {
    all.artifact = paths.at("artifact").at("path").get<std::string>();
    add_artifact(store, all.artifact, time, batch, facts);
  }
  if (values.contains("calibration_id")) {
    for (const CalibrationRow& row : store.list_calibrations()) {
      if (row.id != values.at("calibration_id")) continue;
      batch.tags["calibration_source_sha256"] = row.source_hash;
      batch.metrics.push_back({stage.name + "/samples", static_cast<double>(row.samples), time});
      batch.metrics.push_back({stage.name + "/tokens", static_cast<double>(row.tokens), time});
      facts.files.push_back({"calibration_record.json", dump_json(row.record, 2)});
    }
  }
  facts.batches.push_back(std::move(batch));
}

void add_result(const Store& store, int64_t run_id, const StageFacts& all, TrackingFacts& facts) {
  TrackingBatch batch{"result", {}, {}, {{"seconds/total", all.seconds, all.last}}};
  if (!all.evaluation.model.tasks.empty()) batch.tags["description"] = eval::verdict(all.evaluation);
  if (!all.artifact.empty()) {
    const auto evaluations = store.list_evaluations({"", fs::absolute(all.artifact).lexically_normal().string(), std::nullopt, 1});
    if (!evaluations.empty()) add_sizes(evaluations.front(), all.last, batch);
  }
  facts.batches.push_back(std::move(batch));
  if (!all.results.empty()) facts.files.push_back({"results.json", dump_json(all.results, 2)});
  const fs::path page = store.path().parent_path() / fmt::format("run_{}.html", run_id);
  if (fs::is_regular_file(page)) facts.files.push_back({"report.html", read_text_file(page)});
}

// A pattern of the store that matches this name alone.
std::string exactly(const std::string& name) { return name.empty() ? name : fmt::format("[{}]{}", name.front(), name.substr(1)); }

std::string status_of(const std::string& run_status) {
  if (run_status == "done") return "finished";
  if (run_status == "interrupted") return "killed";
  return run_status;
}

}  // namespace

std::map<std::string, std::string> flat_params(const Json& value) {
  std::map<std::string, std::string> params;
  flatten(value, "", params);
  return params;
}

std::string run_identity(std::string_view name, const Json& config, const std::vector<std::string>& stage_keys) {
  return sha256_hex(dump_json({{"run", name}, {"config", without_tracking(config)}, {"stages", stage_keys}}));
}

TrackingFacts run_facts(Store& store, int64_t run_id, std::string identity) {
  const std::optional<RunRecord> run = store.find_run(run_id);
  if (!run) fail(ErrorKind::kNotFound, "run {}: the store {} has no such run", run_id, store.path().string());
  const std::vector<StageRecord> stages = store.list_stages(run_id);
  if (identity.empty()) {
    std::vector<std::string> keys;
    for (const StageRecord& stage : stages) keys.push_back(stage.key);
    identity = run_identity(run->name, run->config, keys);
  }
  TrackingFacts facts;
  facts.identity = std::move(identity);
  facts.name = run->name;
  facts.started = milliseconds(run->started);
  facts.status = status_of(run->status);
  if (facts.status != "running") facts.ended = milliseconds(run->finished.empty() ? utc_now() : run->finished);

  const Json config = without_tracking(run->config);
  TrackingBatch settings{"settings", flat_params(config), general_tags("run", run->version), {}};
  settings.tags["host"] = run->host;
  settings.tags["config_sha256"] = sha256_hex(dump_json(config));
  if (config.contains("model")) settings.tags["model"] = config.at("model").value("path", "");
  facts.batches.push_back(std::move(settings));
  facts.files.push_back({"config.json", dump_json(config, 2)});

  std::multiset<std::string> tasks;
  StageFacts all;
  for (const StageRecord& stage : stages) {
    if (stage.status == "done" || stage.status == "up_to_date") add_stage(store, stage, tasks, all, facts);
  }
  if (facts.status == "finished") add_result(store, run_id, all, facts);
  if (!run->error.empty()) facts.batches.push_back({fmt::format("error of run {}", run_id), {}, {{"error", run->error}}, {}});
  return facts;
}

TrackingFacts evaluation_facts(Store& store, const EvaluationRecord& evaluation) {
  TrackingFacts facts;
  const Json& model = evaluation.evaluation.at("model");
  TrackingBatch settings{"settings", flat_params({{"model", model.value("description", Json::object())}}), {}, {}};
  settings.params["model.name"] = evaluation.model_name;
  if (!evaluation.base_name.empty()) settings.params["base.name"] = evaluation.base_name;
  for (const Json& task : model.at("tasks")) {
    const std::string name = task.at("task").get<std::string>();
    for (auto& [key, value] : flat_params({{name, task.at("settings")}})) settings.params[key] = std::move(value);
    settings.params[name + ".data_sha256"] = task.at("data_sha256").get<std::string>();
  }
  // Nothing that a tracked run has told may change: the params are part of what it is.
  facts.identity = sha256_hex(dump_json({{"model", {evaluation.model_path, evaluation.model_hash}},
                                         {"base", {evaluation.base_path, evaluation.base_hash}},
                                         {"settings", evaluation.settings_hash},
                                         {"params", settings.params}}));
  facts.name = "eval " + evaluation.model_name;
  const int64_t time = milliseconds(evaluation.created);
  facts.started = time;
  facts.ended = time;
  facts.status = "finished";
  settings.tags = general_tags("eval", evaluation.evaluation.value("version", ""));
  settings.tags["model"] = evaluation.model_path;
  if (!evaluation.base_path.empty()) settings.tags["base_model"] = evaluation.base_path;
  if (!evaluation.base_hash.empty()) settings.tags["base_model_sha256"] = evaluation.base_hash;
  facts.batches.push_back(std::move(settings));

  std::multiset<std::string> tasks;
  TrackingBatch result{"result",
                       {},
                       {{"description", evaluation.evaluation.value("verdict", "")}},
                       evaluation_metrics(evaluation.evaluation, time, tasks)};
  add_sizes(evaluation, time, result);
  facts.batches.push_back(std::move(result));
  facts.files.push_back({"results.json", dump_json(evaluation.evaluation, 2)});
  facts.files.push_back({"report.html", report_page(report_data(store, {exactly(evaluation.model_name), std::nullopt}))});
  return facts;
}

std::string to_payload(const TrackingBatch& batch) {
  Json metrics = Json::array();
  for (const TrackedMetric& metric : batch.metrics) metrics.push_back({metric.key, number_json(metric.value), metric.time});
  return dump_json({{"params", batch.params}, {"tags", batch.tags}, {"metrics", std::move(metrics)}});
}

TrackingBatch batch_from_payload(std::string_view payload, std::string_view name) {
  const Json json = parse_json(payload, name);
  try {
    TrackingBatch batch{std::string(name), json.at("params"), json.at("tags"), {}};
    for (const Json& metric : json.at("metrics"))
      batch.metrics.push_back({metric.at(0), number_from_json(metric.at(1)), metric.at(2)});
    return batch;
  } catch (const Json::exception& error) {
    fail(ErrorKind::kCorruption, "{}: not a batch of figures: {}", name, error.what());
  }
}

}  // namespace salient::pipeline
