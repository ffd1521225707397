#include "pipeline/evaluation_records.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "common/hash.h"
#include "eval/document_json.h"
#include "eval/report.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_files.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

std::string absolute_path(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

void record_model(Store& store, std::optional<int64_t> run_id, const eval::ModelResult& result, const EvaluatedModel& model,
                  const std::string& compared_with) {
  ResultRecord of_model;
  of_model.run_id = run_id;
  of_model.model_name = result.model;
  of_model.model_path = absolute_path(model.folder);
  of_model.model_hash = model.hash;
  if (result.throughput) record_throughput(store, run_id, result.model, result.description, model, *result.throughput);
  for (const eval::TaskResult& task : result.tasks) {
    ResultRecord of_task = of_model;
    of_task.task = task.task;
    of_task.config = {{"settings", task.settings}, {"model", result.description}};
    of_task.data_hash = task.data_sha256;
    of_task.compared_with = compared_with;
    for (const eval::HealthFlag& flag : task.flags) {  // so that a task without figures is no task that was never run
      ResultRecord record = of_task;
      record.metric = fmt::format("flag_{}", eval::to_string(flag.kind));
      record.value = flag.share;
      record.n = static_cast<int64_t>(task.documents.size());
      store.put_result(record);
    }
    for (const eval::MetricResult& metric : task.metrics) {
      ResultRecord record = of_task;
      record.metric = metric.metric;
      record.value = metric.value.value;
      record.standard_error = metric.value.stderr_of_mean;
      record.n = metric.n;
      record.protocol = task.settings.value("protocols", Json::object()).value(metric.metric, "");
      store.put_result(record);
      if (!metric.base) continue;  // a comparison is stored as figures of its own: <metric>_difference, <metric>_retention
      const auto put_comparison = [&](const char* suffix, const eval::Estimate& estimate) {
        ResultRecord comparison = record;
        comparison.metric += suffix;
        comparison.value = estimate.value;
        comparison.standard_error = estimate.stderr_of_mean;
        store.put_result(comparison);
      };
      put_comparison("_difference", metric.base->difference);
      if (metric.base->retention) put_comparison("_retention", *metric.base->retention);
    }
  }
}

// What the same evaluation has in common with an earlier one: tasks, data and settings, not figures.
std::string settings_hash(const eval::Evaluation& evaluation) {
  Json tasks = Json::array();
  for (const eval::TaskResult& task : evaluation.model.tasks)
    tasks.push_back({{"task", task.task}, {"data_sha256", task.data_sha256}, {"settings", task.settings}});
  Json key = {{"tasks", tasks}};
  if (tasks.empty()) {
    key["throughput"] = evaluation.model.throughput.has_value();
    key["runtime_costs"] = evaluation.runtime_costs.size();
  }
  return sha256_hex(dump_json(key));
}

// What an earlier evaluation of the same models on the same data with the same settings measured beside its tasks, and this one did
// not: speed, and what rounding costs.
void keep_measured(const Store& store, EvaluationRecord& record) {
  for (const EvaluationRecord& earlier :
       store.list_evaluations({.model = {}, .model_path = record.model_path, .run_id = {}, .limit = 0})) {
    const bool same = earlier.model_hash == record.model_hash && earlier.base_path == record.base_path &&
                      earlier.base_hash == record.base_hash && earlier.settings_hash == record.settings_hash;
    if (!same) continue;
    const Json& before = earlier.evaluation;
    for (const char* side : {"model", "base"}) {
      if (!record.evaluation.contains(side) || !before.contains(side)) continue;
      Json& now = record.evaluation.at(side);
      const Json& then = before.at(side);
      const bool runs_alike = now.value("description", Json()) == then.value("description", Json());
      if (runs_alike && then.contains("throughput") && !now.contains("throughput")) now["throughput"] = then.at("throughput");
    }
    if (before.contains("runtime_costs") && !record.evaluation.contains("runtime_costs"))
      record.evaluation["runtime_costs"] = before.at("runtime_costs");
  }
}

std::vector<StoredDocument> documents_of(const eval::Evaluation& evaluation) {
  std::vector<StoredDocument> out;
  for (size_t t = 0; t < evaluation.model.tasks.size(); ++t) {
    const std::vector<eval::DocumentRecord>& documents = evaluation.model.tasks[t].documents;
    for (size_t i = 0; i < documents.size(); ++i) {
      StoredDocument& document = out.emplace_back();
      document.task = static_cast<int64_t>(t);
      document.position = static_cast<int64_t>(i);
      document.document = eval::document_json(documents[i]);
      document.model = eval::response_json(documents[i]);
      if (!evaluation.base || t >= evaluation.base->tasks.size()) continue;
      const std::vector<eval::DocumentRecord>& base = evaluation.base->tasks[t].documents;
      if (i < base.size()) document.base = eval::response_json(base[i]);
    }
  }
  return out;
}

bool holds_weights(const fs::path& file) {
  static const std::set<std::string> kWeights = {".safetensors", ".pt", ".pth", ".ts"};
  return kWeights.contains(file.extension().string());
}

fs::path folder_of(const fs::path& model) { return fs::is_directory(model) ? model : fs::absolute(model).parent_path(); }

// Of a model that is a file itself, a TorchScript module, its neighbours are no part.
bool is_part(const fs::path& model, const fs::path& file) {
  return holds_weights(file) && (fs::is_directory(model) || file.filename() == model.filename());
}

// Of the weights on disk.
int64_t weight_bytes(const fs::path& model) {
  if (const auto file = models::find_gguf_model(model)) return static_cast<int64_t>(fs::file_size(*file));
  int64_t bytes = 0;
  for (const auto& [name, path] : models::list_model_files(folder_of(model))) {
    if (is_part(model, path)) bytes += static_cast<int64_t>(fs::file_size(path));
  }
  return bytes;
}

}  // namespace

std::string model_hash(Store& store, const fs::path& model) {
  if (const auto file = models::find_gguf_model(model)) return store.file_sha256(*file);
  std::map<std::string, std::string> hashes;  // sorted by name
  for (const auto& [name, path] : models::list_model_files(folder_of(model))) {
    const bool counts = name == "config.json" || name == "tokenizer.json" || name == "adapter_config.json" || is_part(model, path);
    if (counts) hashes[name] = store.file_sha256(path);
  }
  std::string text;
  for (const auto& [name, hash] : hashes) text += name + " " + hash + "\n";
  return sha256_hex(text);
}

void record_throughput(Store& store, std::optional<int64_t> run_id, const std::string& name, const Json& description,
                       const EvaluatedModel& model, const eval::Throughput& throughput) {
  ResultRecord record;
  record.run_id = run_id;
  record.model_name = name;
  record.model_path = absolute_path(model.folder);
  record.model_hash = model.hash;
  record.task = "throughput";
  record.config = {{"threads", throughput.threads},
                   {"prompt_tokens", throughput.prompt_tokens},
                   {"generated_tokens", throughput.generated_tokens}};
  for (const char* bits : {"activation_bits", "kv_bits"}) {
    if (description.contains(bits)) record.config[bits] = description.at(bits);
  }
  const auto put = [&](const char* metric, double value, int64_t n) {
    record.metric = metric;
    record.value = value;
    record.n = n;
    store.put_result(record);
  };
  const auto put_known = [&](const char* metric, double value, int64_t n) {
    if (value > 0) put(metric, value, n);
  };
  put("prompt_tokens_per_second", throughput.prompt_tokens_per_second, throughput.repeats);
  put("generation_tokens_per_second", throughput.generation_tokens_per_second, throughput.repeats);
  put("weights_disk_bytes", static_cast<double>(throughput.disk_bytes), throughput.repeats);
  put("weights_memory_bytes", static_cast<double>(throughput.memory_bytes), throughput.repeats);
  put("process_peak_bytes", static_cast<double>(throughput.peak_rss_bytes), throughput.repeats);
  put_known("first_token_seconds", throughput.first_token_seconds, throughput.repeats);
  put_known("token_latency_median_seconds", throughput.latency_median_seconds, throughput.latency_tokens);
  put_known("token_latency_p95_seconds", throughput.latency_p95_seconds, throughput.latency_tokens);
  put_known("token_latency_p99_seconds", throughput.latency_p99_seconds, throughput.latency_tokens);
  put_known("bytes_per_token", static_cast<double>(throughput.bytes_per_token), throughput.repeats);
  put_known("read_bandwidth_bytes_per_second", throughput.read_bandwidth, throughput.repeats);
  put_known("bandwidth_share", throughput.bandwidth_share, throughput.repeats);
}

int64_t record_evaluation(Store& store, std::optional<int64_t> run_id, const eval::Evaluation& evaluation,
                          const EvaluatedModel& model, const std::optional<EvaluatedModel>& base) {
  EvaluationRecord record;
  record.run_id = run_id;
  record.model_name = evaluation.model.model;
  record.model_path = absolute_path(model.folder);
  record.model_hash = model.hash;
  record.model_bytes = weight_bytes(model.folder);
  if (evaluation.base && base) {
    record.base_name = evaluation.base->model;
    record.base_path = absolute_path(base->folder);
    record.base_hash = base->hash;
    record.base_bytes = weight_bytes(base->folder);
  }
  record.settings_hash = settings_hash(evaluation);
  record.evaluation = eval::to_json(evaluation);
  const std::vector<StoredDocument> documents = documents_of(evaluation);
  Transaction transaction(store);
  keep_measured(store, record);
  record_model(store, run_id, evaluation.model, model, evaluation.base ? evaluation.base->model : "");
  if (evaluation.base && base) record_model(store, run_id, *evaluation.base, *base, "");
  const int64_t id = store.put_evaluation(record, documents);
  transaction.commit();
  return id;
}

}  // namespace salient::pipeline
