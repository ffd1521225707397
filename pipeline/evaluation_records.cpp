#include "pipeline/evaluation_records.h"

#include <map>
#include <set>

#include "common/hash.h"
#include "models/gguf/gguf_summary.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// Speed and memory, as figures of the task "throughput".
void record_throughput(Store& store, ResultRecord record, const eval::Throughput& throughput, const Json& description) {
  record.task = "throughput";
  record.config = {{"threads", throughput.threads}, {"prompt_tokens", throughput.prompt_tokens}, {"generated_tokens", throughput.generated_tokens}};
  for (const char* bits : {"activation_bits", "kv_bits"}) {
    if (description.contains(bits)) record.config[bits] = description.at(bits);
  }
  record.n = throughput.repeats;
  const auto put = [&](const char* metric, double value) {
    record.metric = metric;
    record.value = value;
    store.put_result(record);
  };
  put("prompt_tokens_per_second", throughput.prompt_tokens_per_second);
  put("generation_tokens_per_second", throughput.generation_tokens_per_second);
  put("weights_disk_bytes", static_cast<double>(throughput.disk_bytes));
  put("weights_memory_bytes", static_cast<double>(throughput.memory_bytes));
  put("process_peak_bytes", static_cast<double>(throughput.peak_rss_bytes));
}

void record_model(Store& store, std::optional<int64_t> run_id, const eval::ModelResult& result, const EvaluatedModel& model,
                  const std::string& compared_with) {
  if (result.throughput) {
    ResultRecord record;
    record.run_id = run_id;
    record.model_name = result.model;
    record.model_path = fs::absolute(model.folder).lexically_normal().string();
    record.model_hash = model.hash;
    record_throughput(store, record, *result.throughput, result.description);
  }
  for (const eval::TaskResult& task : result.tasks) {
    for (const eval::MetricResult& metric : task.metrics) {
      ResultRecord record;
      record.run_id = run_id;
      record.model_name = result.model;
      record.model_path = fs::absolute(model.folder).lexically_normal().string();
      record.model_hash = model.hash;
      record.task = task.task;
      record.metric = metric.metric;
      record.value = metric.value.value;
      record.standard_error = metric.value.stderr_of_mean;
      record.n = metric.n;
      record.config = {{"settings", task.settings}, {"model", result.description}};
      record.data_hash = task.data_sha256;
      record.protocol = task.settings.value("protocols", Json::object()).value(metric.metric, "");
      record.compared_with = compared_with;
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

}  // namespace

std::string model_hash(Store& store, const fs::path& model) {
  static const std::set<std::string> kWeights = {".safetensors", ".pt", ".pth", ".ts"};
  if (const auto file = models::find_gguf_model(model)) return store.file_sha256(*file);
  std::map<std::string, std::string> hashes;  // sorted by name
  for (const auto& entry : fs::directory_iterator(fs::is_directory(model) ? model : fs::absolute(model).parent_path())) {
    const std::string name = entry.path().filename().string();
    const bool counts = name == "config.json" || name == "tokenizer.json" || kWeights.contains(entry.path().extension().string());
    if (counts) hashes[name] = store.file_sha256(entry.path());
  }
  std::string text;
  for (const auto& [name, hash] : hashes) text += name + " " + hash + "\n";
  return sha256_hex(text);
}

void record_evaluation(Store& store, std::optional<int64_t> run_id, const eval::Evaluation& evaluation, const EvaluatedModel& model,
                       const std::optional<EvaluatedModel>& base) {
  Transaction transaction(store);
  record_model(store, run_id, evaluation.model, model, evaluation.base ? evaluation.base->model : "");
  if (evaluation.base && base) record_model(store, run_id, *evaluation.base, *base, "");
  transaction.commit();
}

}  // namespace salient::pipeline
