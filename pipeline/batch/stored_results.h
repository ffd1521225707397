// What the store knows already of a model under given settings, whoever measured it: `salient eval`, a run, or an earlier batch.
//
// A result counts when model and base have the same files (model_hash), the data have the same bytes, and everything that figures
// depend on is the same: task definition, limit, window, examples and their seed, template, system prompt, length of generations,
// dtype, device, bits, BOS policy. Paths do not matter. What tokenizer_config.json and generation_config.json say of special tokens
// is not looked at: of the tokens that end a generation results have nothing.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "pipeline/batch/batch_settings.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct ResultKey {
  std::string model_hash;
  std::string base_hash;  // "" = alone: then results beside any base count, too
  // What the model runs with.
  std::string dtype;  // "" = any: of TorchScript modules, which compute as they were saved
  std::string device;
  int activation_bits = 16;
  int kv_bits = 16;
  // Of the chat templates, which are no part of the models' hashes; "" where none is applied, or there is none that can be read.
  std::string template_sha256;
  std::string base_template_sha256;
};

// `model_hash`, `base_hash`: of the function model_hash. `base`: where there is one. Errors: corruption of config.json.
ResultKey result_key(const BatchSettings& settings, const ListedModel& model, const std::optional<std::filesystem::path>& base,
                     std::string model_hash, std::string base_hash);

// The part of an evaluation that one request asks for, in the form of eval/report.h: tasks of the model, and of the base beside
// them.
struct StoredTasks {
  std::string created;  // when it was measured
  Json model = Json::array();
  Json base = Json::array();
  Json model_head;  // everything else of the model, and of the base: name, description
  Json base_head;   // null where there is none
};

class StoredResults {
 public:
  // Reads all evaluations of the store and the hashes of the settings' data. `settings` and `store` outlive it. Errors: those of
  // eval::find_split and of the store.
  StoredResults(Store& store, const BatchSettings& settings);

  // The newest that answers settings.requests[request]; nothing where there is none.
  std::optional<StoredTasks> find(const ResultKey& key, size_t request) const;
  // Whether speed was measured.
  std::optional<Json> find_throughput(const ResultKey& key) const;

  // What the answer to settings.requests[request] depends on besides the models: definitions and data, by their hashes.
  Json facts(size_t request) const;

  // After an evaluation of this model was stored.
  void read_again(const std::filesystem::path& model);

 private:
  struct Leaf {
    const eval::TaskDefinition* task = nullptr;
    std::string data_sha256;
    int64_t shots = 0;
    std::string fewshot_sha256;
  };
  struct Request {
    eval::TaskSelection selection;
    std::vector<Leaf> leaves;
  };

  bool matches(const Json& stored, const Leaf& leaf, const eval::TaskRequest& request, const ResultKey& key) const;
  std::optional<StoredTasks> pick(const EvaluationRecord& record, size_t request, const ResultKey& key) const;
  void add(std::vector<EvaluationRecord> records);

  Store& store_;
  const BatchSettings& settings_;
  std::vector<Request> requests_;
  std::map<std::string, std::vector<EvaluationRecord>> records_;  // by the model's hash, newest first
};

}  // namespace salient::pipeline
