#include "pipeline/report/report_data.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "pipeline/report/report_layers.h"
#include "pipeline/report/report_samples.h"

namespace salient::pipeline {
namespace {

Json samples_json(const Store& store, const ReportModel& model, const std::vector<std::string>& metrics) {
  Json out = Json::array();
  std::map<int64_t, std::vector<StoredDocument>> documents;  // of each evaluation
  for (const ReportTask& task : model.tasks) {
    if (!documents.contains(task.evaluation_id)) documents[task.evaluation_id] = store.list_documents(task.evaluation_id);
  }
  for (size_t i = 0; i < model.tasks.size(); ++i) {
    for (StoredDocument& document : documents.at(model.tasks[i].evaluation_id)) {
      if (document.task != model.tasks[i].task) continue;
      Json sample = sample_json(document, metrics[i]);
      sample["t"] = i;
      out.push_back(std::move(sample));
    }
  }
  return out;
}

// What figures of two models must have in common to stand in one plot: the data, and all settings but those of the model itself.
std::string conditions_of(const std::string& data_sha256, Json settings) {
  if (!settings.is_object()) settings = Json::object();
  const Json model = settings.value("model", Json::object());
  settings.erase("model");
  if (settings.contains("documents") || settings.contains("windows")) settings.erase("limit");  // all of 100 are the first 100
  Json key = {{"data", data_sha256}, {"settings", std::move(settings)}};
  for (const char* name : {"dtype", "bos_policy"}) key[name] = model.value(name, std::string());
  return dump_json(key);
}

std::string conditions_of(const Json& task) {
  return conditions_of(task.value("data_sha256", ""), task.value("settings", Json::object()));
}

// One figure of a model for each task and metric, of each task under the same conditions: those of the report's model, or, where it
// has not been asked, of the newest that was.
class Family {
 public:
  explicit Family(const Json& self) {
    for (const Json& task : self.at("tasks")) conditions_.try_emplace(task.at("task").get<std::string>(), conditions_of(task));
  }

  void add(const std::string& path, const std::string& hash, const std::string& name, int64_t bytes, const Json& model_result) {
    Member* member = find(path, hash);
    if (member == nullptr) member = &members_.emplace_back(path, hash, name, bytes);
    for (const Json& task : model_result.at("tasks")) {
      if (!fits(*member, task.at("task").get<std::string>(), conditions_of(task))) continue;
      for (const Json& metric : task.at("metrics")) {
        Json figure = {{"task", task.at("task")}};
        for (const char* key : {"metric", "value", "stderr", "value_low", "value_high", "unit", "higher_is_better", "headline"}) {
          if (metric.contains(key)) figure[key] = metric.at(key);
        }
        put(*member, std::move(figure));
      }
    }
  }

  // Of results without an evaluation around them, as older stores have them.
  void add(const ArtifactRecord& artifact, const std::vector<ResultRecord>& results) {
    if (std::any_of(members_.begin(), members_.end(), [&](const Member& m) { return m.path == artifact.path; })) return;
    Member member(artifact.path, "", artifact.name, artifact.bytes);
    for (const ResultRecord& result : results) {
      if (result.model_path != artifact.path || result.task == "throughput" || result.task == "sensitivity") continue;
      if (result.metric.ends_with("_difference") || result.metric.ends_with("_retention") || result.metric.starts_with("flag_"))
        continue;
      if (!fits(member, result.task, conditions_of(result.data_hash, result.config.value("settings", Json::object())))) continue;
      Json figure = {{"task", result.task}, {"metric", result.metric}, {"value", result.value}};
      if (result.standard_error) figure["stderr"] = *result.standard_error;
      put(member, std::move(figure));
    }
    if (!member.seen.empty() || !member.other_settings.empty()) members_.push_back(std::move(member));
  }

  Json json(const EvaluationRecord& self) const {
    Json out = Json::array();
    for (const Member& member : members_) {
      Json entry = member.json;
      entry["is_base"] = member.path == self.base_path && member.hash == self.base_hash;
      entry["is_this"] = member.path == self.model_path && member.hash == self.model_hash;
      for (const std::string& task : member.other_settings) {
        const bool has = std::any_of(member.seen.begin(), member.seen.end(), [&](const auto& seen) { return seen.first == task; });
        if (!has) entry["other_settings"].push_back(task);
      }
      out.push_back(std::move(entry));
    }
    return out;
  }

 private:
  struct Member {
    Member(const std::string& its_path, const std::string& its_hash, const std::string& name, int64_t bytes)
        : path(its_path), hash(its_hash), json({{"name", name}, {"bytes", bytes}, {"figures", Json::array()}}) {}
    std::string path;
    std::string hash;
    Json json;
    std::set<std::pair<std::string, std::string>> seen;  // task, metric: the newest counts
    std::set<std::string> other_settings;                // tasks that it was given under other conditions
  };

  Member* find(const std::string& path, const std::string& hash) {
    const auto it =
        std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.path == path && m.hash == hash; });
    return it == members_.end() ? nullptr : &*it;
  }

  bool fits(Member& member, const std::string& task, const std::string& conditions) {
    if (conditions_.try_emplace(task, conditions).first->second == conditions) return true;
    member.other_settings.insert(task);
    return false;
  }

  static void put(Member& member, Json figure) {
    if (!figure.at("value").is_number()) return;
    if (member.seen.insert({figure.at("task").get<std::string>(), figure.at("metric").get<std::string>()}).second)
      member.json["figures"].push_back(std::move(figure));
  }

  std::map<std::string, std::string> conditions_;  // of each task
  std::vector<Member> members_;
};

Json family_json(const Store& store, const EvaluationRecord& self) {
  if (self.base_hash.empty()) return Json::array();
  Family family(self.evaluation.at("model"));
  for (const EvaluationRecord& record : store.list_evaluations()) {
    const bool related = record.base_hash == self.base_hash || record.model_hash == self.base_hash;
    if (!related) continue;
    const bool base_alone = record.model_hash == self.base_hash && record.base_hash.empty();
    if (base_alone) {
      family.add(self.base_path, self.base_hash, self.base_name, self.base_bytes, record.evaluation.at("model"));
      continue;
    }
    family.add(record.model_path, record.model_hash, record.model_name, record.model_bytes, record.evaluation.at("model"));
    if (record.evaluation.contains("base"))
      family.add(self.base_path, self.base_hash, self.base_name, self.base_bytes, record.evaluation.at("base"));
  }
  const std::vector<ResultRecord> results = store.list_results();
  for (const ArtifactRecord& artifact : store.list_artifacts()) {
    if (artifact.base_model_hash == self.base_hash) family.add(artifact, results);
  }
  return family.json(self);
}

Json model_json(Store& store, const ReportModel& model) {
  const EvaluationRecord& record = model.record;
  Json out = {{"name", record.model_name},           {"path", record.model_path},
              {"hash", record.model_hash},           {"bytes", record.model_bytes},
              {"evaluated", record.created},         {"evaluation", record.evaluation},
              {"layers", layers_of(store, record)},  {"sensitivity", sensitivity_of(store, record)},
              {"family", family_json(store, record)}};
  if (!record.base_hash.empty())
    out["base"] = {
        {"name", record.base_name}, {"path", record.base_path}, {"hash", record.base_hash}, {"bytes", record.base_bytes}};
  std::vector<std::string> metrics;
  for (const Json& task : record.evaluation.at("model").at("tasks")) metrics.push_back(sample_metric(task));
  out["sample_metrics"] = metrics;
  out["samples"] = samples_json(store, model, metrics);
  return out;
}

}  // namespace

Json report_data(Store& store, const ReportSelection& selection) {
  Json models = Json::array();
  for (const ReportModel& model : find_report_models(store, selection)) models.push_back(model_json(store, model));
  return {{"created", utc_now()}, {"version", SALIENT_VERSION}, {"store", store.path().string()}, {"models", std::move(models)}};
}

}  // namespace salient::pipeline
