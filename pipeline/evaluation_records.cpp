#include "pipeline/evaluation_records.h"

#include <map>

#include "common/hash.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

void record_model(Store& store, std::optional<int64_t> run_id, const eval::ModelResult& result, const EvaluatedModel& model,
                  const std::string& compared_with) {
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
      record.protocol = value_or<std::string>(task.settings, "protocol", "", task.task);
      record.compared_with = compared_with;
      store.put_result(record);
    }
  }
}

}  // namespace

std::string model_hash(Store& store, const fs::path& folder) {
  std::map<std::string, std::string> hashes;  // sorted by name
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool counts = name == "config.json" || name == "tokenizer.json" || entry.path().extension() == ".safetensors";
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
