#include "pipeline/batch/batch_report.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "common/error.h"
#include "common/table.h"
#include "common/text.h"
#include "eval/read_report.h"
#include "pipeline/batch/ranking.h"
#include "pipeline/launcher/child_process.h"

namespace salient::pipeline {
namespace {

// What the store has of a model under the settings, requests that have no results left out; nothing where there are none at all.
std::optional<eval::Evaluation> stored_evaluation(const PlannedEvaluation& planned, const BatchSettings& settings,
                                                  const StoredResults& results) {
  if (planned.model_hash.empty()) return std::nullopt;
  const ResultKey key = result_key(settings, planned.model, planned.pairing.base, planned.model_hash, planned.base_hash);
  Json merged = Json::object();
  for (size_t i = 0; i < settings.requests.size(); ++i) {
    const std::optional<StoredTasks> stored = results.find(key, i);
    if (!stored) continue;
    const auto append = [&](const char* side, const Json& head, const Json& tasks) {
      if (!merged.contains(side)) {
        merged[side] = head;
        merged[side]["tasks"] = Json::array();
      }
      for (const Json& task : tasks) merged[side]["tasks"].push_back(task);
    };
    append("model", stored->model_head, stored->model);
    if (!stored->base_head.is_null()) append("base", stored->base_head, stored->base);
  }
  if (merged.empty()) return std::nullopt;
  return eval::evaluation_from_json(merged, planned.model.label);
}

std::vector<RankedModel> rank(const BatchReport& report, const BatchSettings& settings, const StoredResults& results) {
  std::map<std::string, uint64_t> bytes;
  for (const ModelOutcome& outcome : report.outcomes)
    bytes[outcome.planned.model.path.string()] = outcome.planned.model.detected.disk_bytes;
  std::vector<RankedInput> inputs;
  for (const ModelOutcome& outcome : report.outcomes) {
    const PlannedEvaluation& planned = outcome.planned;
    if (planned.state == PlannedState::kSkipped ||
        (outcome.state != OutcomeState::kDone && outcome.state != OutcomeState::kUpToDate))
      continue;
    std::optional<eval::Evaluation> evaluation = stored_evaluation(planned, settings, results);
    if (!evaluation) continue;
    RankedInput input{
        planned.model.label,    planned.pairing.base_label, planned.model.detected.format, planned.model.detected.disk_bytes, 0,
        planned.serves_as_base, std::move(*evaluation)};
    if (planned.pairing.base) {
      const auto known = bytes.find(planned.pairing.base->string());
      input.base_bytes = known != bytes.end() ? known->second : models::detect_model(*planned.pairing.base).disk_bytes;
    }
    inputs.push_back(std::move(input));
  }
  return rank_models(inputs);
}

std::string format_text(const ListedModel& model) {
  if (!model.detected.spec) return model.detected.format;
  return fmt::format("{} w{} g{}", model.detected.format, model.detected.spec->weight_bits, model.detected.spec->group_size);
}

std::string base_text(const Pairing& pairing) {
  return pairing.base ? fmt::format("{} ({})", pairing.base_label, pairing.evidence) : pairing.evidence;
}

std::string left_out_text(const std::vector<LeftOut>& left_out) {
  std::string text;
  for (const LeftOut& entry : left_out) text += fmt::format("left out: {}: {}\n", entry.path.string(), entry.reason);
  return text;
}

Json left_out_json(const std::vector<LeftOut>& left_out) {
  Json out = Json::array();
  for (const LeftOut& entry : left_out) out.push_back({{"path", entry.path.string()}, {"reason", entry.reason}});
  return out;
}

Json model_json(const PlannedEvaluation& planned) {
  const ListedModel& model = planned.model;
  return {{"model", model.label},
          {"path", model.path.string()},
          {"format", model.detected.format},
          {"method", model.detected.method},
          {"bytes", model.detected.disk_bytes},
          {"base", planned.pairing.base ? Json(planned.pairing.base->string()) : Json()},
          {"base_evidence", planned.pairing.evidence}};
}

std::string task_names(const PlannedEvaluation& planned, const BatchSettings& settings) {
  std::vector<std::string> names;
  for (const size_t i : planned.missing) names.push_back(settings.requests[i].task);
  if (planned.throughput) names.emplace_back("throughput");
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

int64_t BatchReport::count(OutcomeState state) const {
  return std::count_if(outcomes.begin(), outcomes.end(), [&](const ModelOutcome& outcome) { return outcome.state == state; });
}

std::string report_text(const BatchReport& report, const BatchSettings& settings, const StoredResults& results) {
  std::vector<std::vector<std::string>> rows;
  for (const ModelOutcome& outcome : report.outcomes) {
    rows.push_back({outcome.planned.model.label, format_text(outcome.planned.model),
                    human_bytes(outcome.planned.model.detected.disk_bytes), base_text(outcome.planned.pairing),
                    std::string(to_string(outcome.state)), outcome.seconds > 0 ? human_duration(outcome.seconds) : "",
                    outcome.state == OutcomeState::kDone ? "" : one_line(outcome.reason)});
  }
  std::string text;
  if (!rows.empty()) text += format_table({"model", "format", "size", "base", "state", "time", "why"}, rows) + "\n";
  if (const std::string left_out = left_out_text(report.left_out); !left_out.empty()) text += left_out + "\n";
  if (const std::vector<RankedModel> ranked = rank(report, settings, results); !ranked.empty())
    text += ranking_table(ranked) + "\n";
  text +=
      fmt::format("{} done, {} up to date, {} skipped, {} failed", report.count(OutcomeState::kDone),
                  report.count(OutcomeState::kUpToDate), report.count(OutcomeState::kSkipped), report.count(OutcomeState::kFailed));
  if (const int64_t stopped = report.count(OutcomeState::kStopped); stopped > 0) text += fmt::format(", {} not reached", stopped);
  if (!report.left_out.empty()) text += fmt::format(", {} left out", report.left_out.size());
  return text + "\n";
}

Json report_json(const BatchReport& report, const BatchSettings& settings, const StoredResults& results) {
  Json models = Json::array();
  for (const ModelOutcome& outcome : report.outcomes) {
    Json model = model_json(outcome.planned);
    model["state"] = to_string(outcome.state);
    model["reason"] = outcome.reason;
    model["attempts"] = outcome.attempts;
    model["seconds"] = outcome.seconds;
    models.push_back(std::move(model));
  }
  Json counts = Json::object();
  for (const OutcomeState state :
       {OutcomeState::kDone, OutcomeState::kUpToDate, OutcomeState::kSkipped, OutcomeState::kFailed, OutcomeState::kStopped})
    counts[std::string(to_string(state))] = report.count(state);
  return {{"models", std::move(models)},
          {"left_out", left_out_json(report.left_out)},
          {"ranking", ranking_json(rank(report, settings, results))},
          {"counts", std::move(counts)}};
}

std::string plan_text(const std::vector<PlannedEvaluation>& plan, const std::vector<LeftOut>& left_out,
                      const BatchSettings& settings, const std::vector<std::string>& words) {
  std::vector<std::vector<std::string>> rows;
  std::string commands;
  for (const PlannedEvaluation& planned : plan) {
    const bool evaluated = planned.state == PlannedState::kEvaluate;
    rows.push_back({planned.model.label, format_text(planned.model), human_bytes(planned.model.detected.disk_bytes),
                    base_text(planned.pairing), std::string(to_string(planned.state)),
                    evaluated ? task_names(planned, settings) : one_line(planned.reason),
                    evaluated ? human_bytes(planned.memory.total()) : ""});
    if (!evaluated) continue;
    commands += "salient";
    for (const std::string& word : evaluation_command(planned, settings, words)) commands += " " + shell_quote(word);
    commands += "\n";
  }
  std::string text;
  if (!rows.empty()) text += format_table({"model", "format", "size", "base", "plan", "tasks or reason", "memory"}, rows) + "\n";
  text += left_out_text(left_out);
  if (!commands.empty()) text += fmt::format("{}each alone:\n{}", left_out.empty() ? "" : "\n", commands);
  return text;
}

Json plan_json(const std::vector<PlannedEvaluation>& plan, const std::vector<LeftOut>& left_out, const BatchSettings& settings,
               const std::vector<std::string>& words) {
  Json models = Json::array();
  for (const PlannedEvaluation& planned : plan) {
    Json model = model_json(planned);
    model["state"] = to_string(planned.state);
    model["reason"] = planned.reason;
    model["memory_bytes"] = planned.memory.total();
    model["throughput"] = planned.throughput;
    model["tasks"] = Json::array();
    for (const size_t i : planned.missing) model["tasks"].push_back(settings.requests[i].task);
    model["command"] = planned.state == PlannedState::kEvaluate ? Json(evaluation_command(planned, settings, words)) : Json();
    models.push_back(std::move(model));
  }
  return {{"models", std::move(models)}, {"left_out", left_out_json(left_out)}};
}

}  // namespace salient::pipeline
