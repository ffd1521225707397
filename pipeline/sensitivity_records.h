// Sensitivities as rows of the store, one mixture a row: what was measured once is never measured again.
//
//   task           "sensitivity"
//   metric         "kl_divergence" (mean, nats) and "top1_agreement" (share of positions)
//   protocol       "whole model", "only model.layers.3", "all but model.layers.3.mlp.down_proj", "only mlp.down_proj"
//   compared_with  the base's name
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "eval/language_model.h"
#include "eval/perplexity.h"
#include "eval/sensitivity.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct SensitivityInputs {
  const eval::LanguageModel& model;
  const eval::LanguageModel& base;
  EvaluatedModel model_files;
  std::string base_hash;
  const eval::TokenWindows& windows;
  std::string text_sha256;
  std::string search_sha256;  // of the file that gave the scales; empty = none
};

class SensitivityRecords {
 public:
  // Reads what is there of the same models, text and settings. `store` must outlive this.
  SensitivityRecords(Store& store, const SensitivityInputs& inputs, std::optional<int64_t> run_id = std::nullopt);

  std::optional<eval::DistributionDistance> find(const std::string& protocol) const;
  // Both metrics, in one transaction.
  void put(const std::string& protocol, const eval::DistributionDistance& distance);
  size_t size() const { return known_.size(); }

 private:
  Store& store_;
  ResultRecord record_;  // all but metric, value, error and protocol
  std::map<std::string, eval::DistributionDistance> known_;
};

// measure_sensitivity of what the store does not have yet; `options.known` and `on_measured` are set here.
eval::Sensitivity measure_sensitivity(Store& store, const SensitivityInputs& inputs, eval::SensitivityOptions options,
                                      std::optional<int64_t> run_id = std::nullopt);

}  // namespace salient::pipeline
