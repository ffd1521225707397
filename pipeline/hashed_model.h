// A model and the hash of the files that it was loaded from, under which its answers and figures are filed: files may be replaced
// while they are read, and while a model that is in memory already is evaluated.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/error.h"
#include "eval/language_model.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct HashedModel {
  EvaluatedModel files;
  eval::LanguageModel model;
};

using LoadLanguageModel = std::function<eval::LanguageModel(const std::filesystem::path&, const eval::LanguageModelOptions&)>;

// Hashes, loads, and hashes again, which costs a look at the files' times where nothing has changed. `expected_hash`: of the files
// when it was decided to load them; "": whatever they are. Errors: io where the files are others before or after; those of
// model_hash and of `load`.
HashedModel load_hashed_model(Store& store, const std::filesystem::path& path, const eval::LanguageModelOptions& options,
                              const std::string& expected_hash = "", const LoadLanguageModel& load = eval::load_language_model);

// What is wrong where the files have another hash by now, or none: the error of model_hash. `since` completes "the model's files
// changed ...": "while it was evaluated". Errors: cancelled.
std::optional<Error> find_change(Store& store, const EvaluatedModel& files, std::string_view since);
// Throws it.
void check_unchanged(Store& store, const EvaluatedModel& files, std::string_view since);

inline constexpr std::string_view kWhileEvaluated = "while it was evaluated";

}  // namespace salient::pipeline
