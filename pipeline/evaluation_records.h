// Evaluation figures as rows of the store.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "common/json.h"
#include "eval/result.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// SHA-256 over the names and contents of a model folder's config.json, weights and tokenizer: what "the same model" means in the
// store; of a TorchScript file over itself and the other two beside it, of a GGUF file its own. Big files are read once
// (Store::file_sha256 remembers).
std::string model_hash(Store& store, const std::filesystem::path& folder);

struct EvaluatedModel {
  std::filesystem::path folder;
  std::string hash;
};

// Speed and memory as figures of the task "throughput". `name` and `description`: of eval::ModelResult.
void record_throughput(Store& store, std::optional<int64_t> run_id, const std::string& name, const Json& description,
                       const EvaluatedModel& model, const eval::Throughput& throughput);

// Stores the whole evaluation with its documents, and every metric of the model, and of the base where there is one, as a row of
// its own; in one transaction. It replaces an evaluation of the same models, data and settings, but speed and costs of rounding
// that were measured then and not now are kept. The result is the evaluation's id.
int64_t record_evaluation(Store& store, std::optional<int64_t> run_id, const eval::Evaluation& evaluation,
                          const EvaluatedModel& model, const std::optional<EvaluatedModel>& base);

}  // namespace salient::pipeline
