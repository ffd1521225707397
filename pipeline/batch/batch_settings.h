// What a batch evaluation measures and how, the same for all of its models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluate.h"
#include "eval/language_model.h"
#include "pipeline/batch/base_pairing.h"
#include "pipeline/batch/model_listing.h"

namespace salient::pipeline {

struct BatchSettings {
  std::vector<eval::TaskRequest> requests;
  // `tasks` is set and outlives the settings; `journal` and `base_journal` are not used; `throughput` says whether speed is
  // measured.
  eval::EvaluationOptions options;
  eval::LanguageModelOptions model;  // bits of activations and KV cache are those of quantized models; originals run as computed
  bool fresh = false;                // as if the store had no results
  std::optional<uint64_t>
      memory;           // bytes that a model, its base and the work on them may take; nothing: what is free when its turn comes
  int64_t retries = 1;  // of an evaluation that failed, when all others are done
  bool update_card = false;           // figures go into the model cards of folders that this program made, too
  std::filesystem::path output_path;  // results in lm-evaluation-harness's form, "" = none
  bool log_samples = false;
  std::vector<BaseRule> bases;
};

// With the bits that this model runs with.
eval::LanguageModelOptions model_options(const BatchSettings& settings, const ListedModel& model);
// As a base: as it is stored.
eval::LanguageModelOptions base_options(const BatchSettings& settings);

}  // namespace salient::pipeline
