#include "pipeline/hashed_model.h"

namespace salient::pipeline {

HashedModel load_hashed_model(Store& store, const std::filesystem::path& path, const eval::LanguageModelOptions& options,
                              const std::string& expected_hash, const LoadLanguageModel& load) {
  EvaluatedModel files{path, expected_hash.empty() ? model_hash(store, path) : expected_hash};
  if (!expected_hash.empty()) check_unchanged(store, files, "since they were looked at");
  eval::LanguageModel model = load(path, options);
  check_unchanged(store, files, "while it was loaded");
  return {std::move(files), std::move(model)};
}

std::optional<Error> find_change(Store& store, const EvaluatedModel& files, std::string_view since) {
  std::string found;
  try {
    found = model_hash(store, files.folder);
  } catch (const Error& error) {  // files that are gone, or can be read no longer
    if (error.kind() == ErrorKind::kCancelled) throw;
    return error;
  }
  if (found == files.hash) return std::nullopt;
  return Error(ErrorKind::kIo, fmt::format("{}: found files with the hash {:.16}, expected those with {:.16}",
                                           files.folder.string(), found, files.hash))
      .with_hint(fmt::format("the model's files changed {}; give the same command again", since));
}

void check_unchanged(Store& store, const EvaluatedModel& files, std::string_view since) {
  if (const std::optional<Error> change = find_change(store, files, since)) throw Error(*change);
}

}  // namespace salient::pipeline
