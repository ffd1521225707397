#include "pipeline/sensitivity_records.h"

#include "common/log.h"

namespace salient::pipeline {
namespace {

constexpr const char* kTask = "sensitivity";
constexpr const char* kDivergence = "kl_divergence";
constexpr const char* kAgreement = "top1_agreement";

// Everything but the value that makes a row this measurement's.
bool is_same(const ResultRecord& a, const ResultRecord& b) {
  return a.model_path == b.model_path && a.model_hash == b.model_hash && a.data_hash == b.data_hash &&
         a.compared_with == b.compared_with && a.config == b.config;
}

}  // namespace

SensitivityRecords::SensitivityRecords(Store& store, const SensitivityInputs& inputs, std::optional<int64_t> run_id)
    : store_(store) {
  record_.run_id = run_id;
  record_.model_name = inputs.model.name;
  record_.model_path = std::filesystem::absolute(inputs.model_files.folder).lexically_normal().string();
  record_.model_hash = inputs.model_files.hash;
  record_.task = kTask;
  record_.n = inputs.windows.count() * inputs.windows.window;
  record_.config = {{"settings",
                     {{"window", inputs.windows.window},
                      {"windows", inputs.windows.count()},
                      {"softmax_dtype", "float32"},
                      {"base_hash", inputs.base_hash}}},
                    {"model", eval::describe(inputs.model)},
                    {"base", eval::describe(inputs.base)}};
  if (!inputs.search_sha256.empty()) record_.config["settings"]["search_sha256"] = inputs.search_sha256;
  record_.data_hash = inputs.text_sha256;
  record_.compared_with = inputs.base.name;
  std::map<std::string, eval::Estimate> agreements;
  for (const ResultRecord& row :
       store.list_results({.model = "", .task = kTask, .metric = kAgreement, .run_id = std::nullopt, .limit = 0})) {
    if (is_same(row, record_)) agreements[row.protocol] = {row.value, row.standard_error};
  }
  for (const ResultRecord& row :
       store.list_results({.model = "", .task = kTask, .metric = kDivergence, .run_id = std::nullopt, .limit = 0})) {
    if (is_same(row, record_) && agreements.contains(row.protocol))
      known_[row.protocol] = {{row.value, row.standard_error}, agreements[row.protocol]};
  }
}

std::optional<eval::DistributionDistance> SensitivityRecords::find(const std::string& protocol) const {
  const auto found = known_.find(protocol);
  return found == known_.end() ? std::nullopt : std::optional(found->second);
}

void SensitivityRecords::put(const std::string& protocol, const eval::DistributionDistance& distance) {
  Transaction transaction(store_);
  record_.protocol = protocol;
  const auto put_metric = [&](const char* metric, const eval::Estimate& estimate) {
    record_.metric = metric;
    record_.value = estimate.value;
    record_.standard_error = estimate.stderr_of_mean;
    store_.put_result(record_);
  };
  put_metric(kDivergence, distance.kl);
  put_metric(kAgreement, distance.same_top);
  transaction.commit();
  known_[protocol] = distance;
}

eval::Sensitivity measure_sensitivity(Store& store, const SensitivityInputs& inputs, eval::SensitivityOptions options,
                                      std::optional<int64_t> run_id) {
  SensitivityRecords records(store, inputs, run_id);
  if (records.size() > 0) log_info("sensitivity_resumed measurements={} store={}", records.size(), store.path().string());
  options.known = [&](const std::string& protocol) { return records.find(protocol); };
  options.on_measured = [&](const std::string& protocol, const eval::DistributionDistance& distance) {
    records.put(protocol, distance);
  };
  return eval::measure_sensitivity(inputs.model, inputs.base, inputs.windows, options);
}

}  // namespace salient::pipeline
