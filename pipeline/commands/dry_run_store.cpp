#include "pipeline/commands/dry_run_store.h"

namespace salient::pipeline {

DryRunStore::DryRunStore(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) {
    store_.emplace(path);
    return;
  }
  scratch_.emplace();
  store_.emplace(scratch_->path() / "salient.db");
}

}  // namespace salient::pipeline
