// The store that a dry run asks what is done: the one that the configuration names, or, where that is not there yet, an empty one
// that vanishes again.
#pragma once

#include <filesystem>
#include <optional>

#include "common/scratch_folder.h"
#include "pipeline/store.h"

namespace salient::pipeline {

class DryRunStore {
 public:
  // Errors: those of Store; io.
  explicit DryRunStore(const std::filesystem::path& path);

  Store& store() { return *store_; }

 private:
  std::optional<ScratchFolder> scratch_;  // of the empty one; outlives it
  std::optional<Store> store_;
};

}  // namespace salient::pipeline
