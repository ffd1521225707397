#include "pipeline/report/report_models.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/error.h"
#include "eval/read_report.h"
#include "eval/report.h"

namespace salient::pipeline {
namespace {

// Paths that the run made or used as its artifact.
std::set<std::string> artifacts_of(const Store& store, int64_t run_id) {
  std::set<std::string> paths;
  for (const StageRecord& stage : store.list_stages(run_id)) {
    const Json outputs = stage.outputs.value("paths", Json::object());
    if (outputs.contains("artifact"))
      paths.insert(std::filesystem::absolute(outputs.at("artifact").at("path").get<std::string>()).lexically_normal().string());
  }
  return paths;
}

std::vector<EvaluationRecord> select_evaluations(const Store& store, const ReportSelection& selection) {
  std::vector<EvaluationRecord> found = store.list_evaluations({selection.model, "", std::nullopt, 0});
  if (selection.run_id) {
    if (!store.find_run(*selection.run_id))
      fail(ErrorKind::kNotFound, "run {}: the store {} has no such run", *selection.run_id, store.path().string());
    std::set<std::string> artifacts = artifacts_of(store, *selection.run_id);
    std::set<std::pair<std::string, std::string>> chosen;  // path, hash
    for (const EvaluationRecord& record : found) {         // of an artifact the newest state
      if (artifacts.erase(record.model_path) > 0 || record.run_id == selection.run_id)
        chosen.insert({record.model_path, record.model_hash});
    }
    std::erase_if(found, [&](const EvaluationRecord& record) { return !chosen.contains({record.model_path, record.model_hash}); });
  } else if (selection.model.empty() && !found.empty()) {
    const EvaluationRecord newest = found.front();
    std::erase_if(found, [&](const EvaluationRecord& record) {
      return record.model_path != newest.model_path || record.model_hash != newest.model_hash;
    });
  }
  if (!found.empty()) return found;
  throw Error(ErrorKind::kNotFound,
              selection.model.empty()
                  ? fmt::format("{}: no evaluation{} in the store", store.path().string(),
                                selection.run_id ? fmt::format(" of run {}", *selection.run_id) : "")
                  : fmt::format("{}: no evaluation of a model '{}' in the store", store.path().string(), selection.model))
      .with_hint(
          "salient eval MODEL --compare-with BASE makes one; --store names another store, salient results lists what is there");
}

class Merger {
 public:
  explicit Merger(const EvaluationRecord& newest) : model_{newest, {}} {
    description_ = newest.evaluation.at("model").value("description", Json());
    model_.record.evaluation = Json::object();
    tasks_ = base_tasks_ = Json::array();
  }

  bool is_same(const EvaluationRecord& record) const {
    const Json description = record.evaluation.at("model").value(
        "description", Json());  // bits, dtype, BOS policy; none where only rounding was measured
    return record.model_path == model_.record.model_path && record.model_hash == model_.record.model_hash &&
           (description.empty() || description_.empty() || description == description_);
  }

  // What newer ones have not said yet.
  void add(const EvaluationRecord& record) {
    const Json& evaluation = record.evaluation;
    const bool has_base = evaluation.contains("base");
    if (has_base && model_.record.base_hash.empty()) {  // the newest with a base decides which one
      model_.record.base_name = record.base_name;
      model_.record.base_path = record.base_path;
      model_.record.base_hash = record.base_hash;
      model_.record.base_bytes = record.base_bytes;
    }
    if (has_base && record.base_hash != model_.record.base_hash) return;
    const Json& model = evaluation.at("model");
    take_head(merged_["model"], model);
    if (has_base) take_head(merged_["base"], evaluation.at("base"));
    if (evaluation.contains("runtime_costs") && !merged_.contains("runtime_costs"))
      merged_["runtime_costs"] = evaluation.at("runtime_costs");
    Json base_tasks = Json::array();
    std::set<std::pair<std::string, std::string>> of_this;
    size_t at = 0;  // the first that was evaluated comes first
    for (size_t i = 0; i < model.at("tasks").size(); ++i) {
      const Json& task = model.at("tasks")[i];
      const std::pair key(task.at("task").get<std::string>(), task.value("file", ""));
      if (seen_.contains(key)) continue;
      of_this.insert(key);
      tasks_.insert(tasks_.begin() + static_cast<std::ptrdiff_t>(at), task);
      model_.tasks.insert(model_.tasks.begin() + static_cast<std::ptrdiff_t>(at), {record.id, static_cast<int64_t>(i)});
      if (has_base && i < evaluation.at("base").at("tasks").size()) base_tasks.push_back(evaluation.at("base").at("tasks")[i]);
      ++at;
    }
    base_tasks_.insert(base_tasks_.begin(), base_tasks.begin(), base_tasks.end());
    seen_.merge(of_this);
  }

  ReportModel take() {
    merged_["model"]["tasks"] = std::move(tasks_);
    if (merged_.contains("base")) merged_["base"]["tasks"] = std::move(base_tasks_);
    const Json judged = eval::to_json(eval::evaluation_from_json(merged_, model_.record.model_name));
    for (const char* key : {"verdict", "verdict_lines"}) {
      if (judged.contains(key)) merged_[key] = judged.at(key);
    }
    model_.record.evaluation = std::move(merged_);
    return std::move(model_);
  }

 private:
  // Everything of a model but its tasks.
  static void take_head(Json& into, const Json& from) {
    for (const auto& [key, value] : from.items()) {
      if (key != "tasks" && !value.empty() && !into.contains(key)) into[key] = value;
    }
  }

  ReportModel model_;
  Json merged_ = Json::object();
  Json tasks_;
  Json base_tasks_;
  Json description_;                                    // of the newest
  std::set<std::pair<std::string, std::string>> seen_;  // task, file
};

}  // namespace

std::vector<ReportModel> find_report_models(const Store& store, const ReportSelection& selection) {
  std::vector<Merger> mergers;
  for (const EvaluationRecord& record : select_evaluations(store, selection)) {
    auto merger = std::find_if(mergers.begin(), mergers.end(), [&](const Merger& m) { return m.is_same(record); });
    if (merger == mergers.end()) merger = mergers.insert(mergers.end(), Merger(record));
    merger->add(record);
  }
  std::vector<ReportModel> models;
  for (Merger& merger : mergers) models.push_back(merger.take());
  return models;
}

}  // namespace salient::pipeline
