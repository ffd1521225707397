#include "pipeline/batch/stored_results.h"

#include <algorithm>

#include "common/error.h"
#include "eval/prepared_task.h"
#include "eval/task_data.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/compressed_config.h"
#include "models/text/chat_template.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

std::string dtype_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : c10::toString(dtype);
}

// What the model's own files say of its activations and KV cache, as Decoder::load reads it.
models::RuntimeBits stored_bits(const ListedModel& model) {
  if (model.kind != ModelKind::kCheckpoint) return {};
  const fs::path file = model.path / "config.json";
  const Json config = read_json_file(file);
  if (!config.contains("quantization_config") || !config.at("quantization_config").is_object()) return {};
  return models::read_runtime_bits(config.at("quantization_config"), file.string() + ": quantization_config");
}

// Of the template that a loaded model would have. One that cannot be read fits no result: the evaluation will say what is wrong.
std::string template_sha256(const fs::path& model) {
  const auto gguf = models::find_gguf_model(model);
  const fs::path folder = gguf ? *gguf : fs::is_directory(model) ? model : fs::absolute(model).parent_path();
  try {
    return models::ChatTemplate::exists_in(folder) ? models::ChatTemplate::from_folder(folder).sha256() : "";
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    return "";
  }
}

// Results without a template's hash are of tasks that apply none, or of a group.
bool has_template(const Json& task, const std::string& sha256) {
  return task.value("settings", Json::object()).value("chat_template_sha256", sha256) == sha256;
}

bool has_headline(const Json& metrics) {
  return std::any_of(metrics.begin(), metrics.end(), [](const Json& metric) { return metric.value("headline", false); });
}

bool is_broken(const Json& task) {
  const Json flags = task.value("flags", Json::array());
  return std::any_of(flags.begin(), flags.end(), [](const Json& flag) { return flag.value("kind", "") == "nan_logits"; });
}

Json without_tasks(Json result) {
  result.erase("tasks");
  result.erase("throughput");
  return result;
}

}  // namespace

ResultKey result_key(const BatchSettings& settings, const ListedModel& model, const std::optional<fs::path>& base,
                     std::string model_hash, std::string base_hash) {
  const models::DecoderOptions options = model_options(settings, model).decoder;
  const models::RuntimeBits stored = stored_bits(model);
  ResultKey key{std::move(model_hash), std::move(base_hash), dtype_name(options.dtype), options.device.str(), 16, 16, "", ""};
  if (model.kind == ModelKind::kTorchscript) key.dtype.clear();
  key.activation_bits = options.activation_bits.value_or(stored.activation_bits.value_or(16));
  key.kv_bits = options.kv_bits.value_or(stored.kv_bits.value_or(16));
  if (settings.options.apply_chat_template) {
    key.template_sha256 = template_sha256(model.path);
    if (base) key.base_template_sha256 = template_sha256(*base);
  }
  return key;
}

StoredResults::StoredResults(Store& store, const BatchSettings& settings) : store_(store), settings_(settings) {
  for (const eval::TaskRequest& request : settings.requests) {
    Request& known = requests_.emplace_back();
    known.selection = settings.options.tasks->find(request.task);
    for (const auto& task : known.selection.tasks) {
      const eval::DataSource source = eval::source_of(request, task->name);
      Leaf& leaf = known.leaves.emplace_back();
      leaf.task = task.get();
      leaf.data_sha256 = store.file_sha256(eval::find_split(*task, task->evaluated_split(), source));
      leaf.shots = eval::shots_of(*task, request.num_fewshot);
      if (leaf.shots == 0) continue;
      leaf.fewshot_sha256 =
          task->shots_split().empty() ? task->sha256 : store.file_sha256(eval::find_split(*task, task->shots_split(), source));
    }
  }
  add(store.list_evaluations());
}

Json StoredResults::facts(size_t request) const {
  Json leaves = Json::array();
  for (const Leaf& leaf : requests_[request].leaves)
    leaves.push_back({leaf.task->name, leaf.task->sha256, leaf.data_sha256, leaf.shots, leaf.fewshot_sha256});
  return leaves;
}

void StoredResults::add(std::vector<EvaluationRecord> records) {
  for (EvaluationRecord& record : records) {
    std::string hash = record.model_hash;
    records_[hash].push_back(std::move(record));
  }
}

void StoredResults::read_again(const fs::path& model) {
  const std::string path = fs::absolute(model).lexically_normal().string();
  std::vector<EvaluationRecord> found =
      store_.list_evaluations({.model = "", .model_path = path, .run_id = std::nullopt, .limit = 0});
  for (auto& [hash, records] : records_)
    std::erase_if(records, [&](const EvaluationRecord& record) { return record.model_path == path; });
  for (EvaluationRecord& record : found) {
    std::vector<EvaluationRecord>& records = records_[record.model_hash];
    const auto older =
        std::find_if(records.begin(), records.end(), [&](const auto& other) { return other.created < record.created; });
    records.insert(older, std::move(record));
  }
}

bool StoredResults::matches(const Json& stored, const Leaf& leaf, const eval::TaskRequest& request, const ResultKey& key) const {
  const eval::TaskDefinition& task = *leaf.task;
  const eval::EvaluationOptions& options = settings_.options;
  const Json settings = stored.value("settings", Json::object());
  const Json model = settings.value("model", Json::object());
  const auto is = [](const Json& object, const char* name, const auto& expected) {
    return object.value(name, Json()) == Json(expected);
  };
  if (stored.value("task", "") != task.name || stored.value("data_sha256", "") != leaf.data_sha256) return false;
  if (!key.dtype.empty() && !is(model, "dtype", key.dtype)) return false;
  if (!is(model, "device", key.device) || model.value("activation_bits", 16) != key.activation_bits ||
      model.value("kv_bits", 16) != key.kv_bits)
    return false;
  if (!is(model, "bos_policy", std::string(eval::to_string(settings_.model.bos))) || !is(settings, "limit", request.limit))
    return false;
  if (task.output_type == eval::OutputType::kTokenWindows) {
    const int64_t window = request.window > 0 ? request.window : std::min<int64_t>(2048, model.value("max_length", int64_t{2048}));
    return is(settings, "window", window);
  }
  if (!is(settings, "task_sha256", task.sha256) || !is(settings, "num_fewshot", leaf.shots)) return false;
  if (!is(settings, "chat_template", options.apply_chat_template)) return false;
  if (settings.value("system_instruction", "") != options.system_instruction) return false;
  if (leaf.shots > 0) {
    if (!is(settings, "fewshot_sha256", leaf.fewshot_sha256) || !is(settings, "fewshot_seed", options.fewshot_seed)) return false;
    if (options.apply_chat_template && !is(settings, "fewshot_as_multiturn", options.fewshot_as_multiturn)) return false;
  }
  if (task.output_type == eval::OutputType::kGenerateUntil && !is_broken(stored)) {
    if (!is(settings, "max_new_tokens", options.max_new_tokens > 0 ? options.max_new_tokens : task.max_new_tokens)) return false;
    if (settings.contains("sampling") && !is(settings.at("sampling"), "seed", options.fewshot_seed)) return false;
  }
  return true;
}

std::optional<StoredTasks> StoredResults::pick(const EvaluationRecord& record, size_t request, const ResultKey& key) const {
  if (!key.base_hash.empty() && record.base_hash != key.base_hash) return std::nullopt;
  const Json& evaluation = record.evaluation;
  const Json tasks = evaluation.at("model").value("tasks", Json::array());
  const bool beside = !key.base_hash.empty();
  if (beside && !evaluation.contains("base")) return std::nullopt;
  const Json base_tasks = beside ? evaluation.at("base").value("tasks", Json::array()) : Json::array();
  StoredTasks found{record.created, Json::array(), Json::array(), without_tasks(evaluation.at("model")), Json()};
  if (beside) found.base_head = without_tasks(evaluation.at("base"));
  const auto take = [&](const auto& fits) {
    for (size_t i = 0; i < tasks.size(); ++i) {
      if (!fits(tasks[i]) || (beside && i >= base_tasks.size())) continue;
      if (!has_template(tasks[i], key.template_sha256)) continue;
      if (beside && !has_template(base_tasks[i], key.base_template_sha256)) continue;
      found.model.push_back(tasks[i]);
      if (beside) found.base.push_back(base_tasks[i]);
      return true;
    }
    return false;
  };
  const Request& wanted = requests_[request];
  const bool single = wanted.selection.groups.empty();
  for (const Leaf& leaf : wanted.leaves) {
    const auto fits = [&](const Json& task) {
      if (!matches(task, leaf, settings_.requests[request], key)) return false;
      // As a member of a group it has given its headline away.
      const bool headline =
          std::any_of(leaf.task->metrics.begin(), leaf.task->metrics.end(), [](const auto& metric) { return metric.headline; });
      return !single || !headline || is_broken(task) || has_headline(task.value("metrics", Json::array()));
    };
    if (!take(fits)) return std::nullopt;
  }
  for (const eval::GroupDefinition& group : wanted.selection.groups) {
    if (group.metrics.empty()) continue;
    const auto fits = [&](const Json& task) {
      const Json settings = task.value("settings", Json::object());
      return task.value("task", "") == group.name && settings.value("group", false) &&
             settings.value("tasks", Json()) == Json(group.tasks);
    };
    if (!take(fits)) return std::nullopt;
  }
  return found;
}

std::optional<StoredTasks> StoredResults::find(const ResultKey& key, size_t request) const {
  const auto records = records_.find(key.model_hash);
  if (records == records_.end()) return std::nullopt;
  for (const EvaluationRecord& record : records->second) {
    if (std::optional<StoredTasks> found = pick(record, request, key)) return found;
  }
  return std::nullopt;
}

std::optional<Json> StoredResults::find_throughput(const ResultKey& key) const {
  const auto records = records_.find(key.model_hash);
  if (records == records_.end()) return std::nullopt;
  for (const EvaluationRecord& record : records->second) {
    const Json& model = record.evaluation.at("model");
    const Json description = model.value("description", Json::object());
    const bool same =
        description.value("activation_bits", 16) == key.activation_bits && description.value("kv_bits", 16) == key.kv_bits &&
        (key.dtype.empty() || description.value("dtype", "") == key.dtype) && description.value("device", "") == key.device;
    if (same && model.contains("throughput")) return model.at("throughput");
  }
  return std::nullopt;
}

}  // namespace salient::pipeline
