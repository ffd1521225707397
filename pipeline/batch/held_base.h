// The base of the models that are evaluated one after another: loaded once, and what it answered is not asked again.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "eval/evaluate.h"
#include "eval/language_model.h"
#include "pipeline/journal_store.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct HeldBase {
  std::filesystem::path path;
  std::string hash;  // model_hash
  eval::LanguageModel model;
  eval::RequestJournal journal;
  std::optional<eval::ModelResult> known;  // results of this process, with documents

  // Adds what is not known yet.
  void remember(const eval::ModelResult& result);
};

// Holds one at a time.
class BaseHolder {
 public:
  // The one that is held, where it is this; else it is loaded, after the other one is let go. `hash`: of its files, model_hash;
  // `options.name` is taken. Errors: those of load_hashed_model.
  HeldBase& hold(Store& store, const std::filesystem::path& path, const std::string& hash,
                 const eval::LanguageModelOptions& options, bool fresh);
  bool holds(const std::filesystem::path& path, const std::string& hash) const {
    return held_ != nullptr && held_->path == path && held_->hash == hash;
  }
  void release() { held_.reset(); }

 private:
  std::unique_ptr<HeldBase> held_;
};

}  // namespace salient::pipeline
