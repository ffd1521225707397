#include "pipeline/report/report_layers.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <tuple>

#include "common/error.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/explanation_places.h"

namespace salient::pipeline {
namespace {

void put_error(Json& out, const char* key, double error) {
  if (std::isfinite(error)) out[key] = error;
}

}  // namespace

Json layers_json(const Explanation& explanation) {
  Json linears = Json::array();
  for (const LinearPlace& place : places_of(explanation.linears)) {
    Json entry = {{"name", place.name}, {"block", place.block}, {"projection", place.projection}, {"count", place.members.size()}};
    put_error(entry, "nearest", mean_of(place, [](const LinearReport& r) { return r.rtn_error; }));
    put_error(entry, "scaled", mean_of(place, [](const LinearReport& r) { return r.scaled_error; }));
    put_error(entry, "clipped", mean_of(place, [](const LinearReport& r) { return r.clipped_error; }));
    put_error(entry, "stored", mean_of(place, [](const LinearReport& r) { return r.error; }));
    put_error(entry, "held_back", mean_of(place, [](const LinearReport& r) { return r.held_back_error; }));
    const LinearReport& first = *place.members.front();  // experts of a block read the same input, or nearly so
    if (first.bits > 0) entry["bits"] = first.bits;
    if (!first.salience_quantiles.empty()) entry["salience"] = first.salience_quantiles;
    linears.push_back(std::move(entry));
  }
  Json out = {
      {"total", {{"rtn_error", explanation.total.rtn_error}, {"error", explanation.total.error}, {"left", explanation.total.left}}},
      {"calibration_tokens", explanation.calibration_tokens},
      {"linears", std::move(linears)}};
  if (explanation.salience.within_median) out["salience_prediction"] = *explanation.salience.within_median;
  return out;
}

Json layers_of(Store& store, const EvaluationRecord& record) {
  try {
    const std::filesystem::path folder = record.model_path;
    if (std::filesystem::exists(folder / "quantization_metadata.json") && model_hash(store, folder) == record.model_hash)
      return layers_json(explain_artifact(folder));
    for (const ArtifactRecord& artifact : store.list_artifacts({"", record.model_path, 1}))
      return layers_json(explain_metadata(artifact.metadata, store.path().string() + ": artifact " + artifact.name));
  } catch (const Error& error) {
    return {{"note", error.message()}};
  }
  return {{"note", "The model's folder has no notes of its quantization, or has changed since the evaluation."}};
}

Json sensitivity_of(const Store& store, const EvaluationRecord& record) {
  constexpr std::string_view kOnly = "only ";
  constexpr std::string_view kAllBut = "all but ";
  Json out = Json::array();
  std::vector<ResultRecord> results = store.list_results({"", "sensitivity", "kl_divergence", std::nullopt, 0});
  std::erase_if(results,
                [&](const ResultRecord& r) { return r.model_path != record.model_path || r.model_hash != record.model_hash; });
  const auto newest = std::max_element(results.begin(), results.end(), [](const ResultRecord& a, const ResultRecord& b) {
    return std::tie(a.created, a.id) < std::tie(b.created, b.id);
  });
  for (const ResultRecord& result : results) {
    if (result.data_hash != newest->data_hash || result.config != newest->config) continue;
    const bool only = result.protocol.starts_with(kOnly);
    if (!only && !result.protocol.starts_with(kAllBut)) continue;
    Json entry = {{"part", result.protocol.substr(only ? kOnly.size() : kAllBut.size())}, {"only", only}, {"value", result.value}};
    if (result.standard_error) entry["stderr"] = *result.standard_error;
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace salient::pipeline
