#include "pipeline/batch/held_base.h"

#include <algorithm>

#include "pipeline/hashed_model.h"

namespace salient::pipeline {

void HeldBase::remember(const eval::ModelResult& result) {
  if (!known) {
    known = result;
    return;
  }
  for (const eval::TaskResult& task : result.tasks) {
    const bool there = std::any_of(known->tasks.begin(), known->tasks.end(), [&](const eval::TaskResult& other) {
      return other.task == task.task && other.data_sha256 == task.data_sha256 && other.settings == task.settings;
    });
    if (!there) known->tasks.push_back(task);
  }
  if (result.throughput) known->throughput = result.throughput;
}

HeldBase& BaseHolder::hold(Store& store, const std::filesystem::path& path, const std::string& hash,
                           const eval::LanguageModelOptions& options, bool fresh) {
  if (holds(path, hash)) return *held_;
  release();
  eval::LanguageModel model = load_hashed_model(store, path, options, hash).model;
  eval::RequestJournal journal = make_journal(store, hash, model, fresh);
  held_.reset(new HeldBase{path, hash, std::move(model), std::move(journal), std::nullopt});
  return *held_;
}

}  // namespace salient::pipeline
