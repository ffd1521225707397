#include "pipeline/commands/dry_run_store.h"

#include <cerrno>
#include <cstdlib>
#include <string>

#include "common/file.h"

namespace salient::pipeline {

DryRunStore::DryRunStore(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) {
    store_.emplace(path);
    return;
  }
  std::string name = (std::filesystem::temp_directory_path() / "salient-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail_errno(name, "create the folder", errno);
  folder_ = name;
  store_.emplace(folder_ / "salient.db");
}

DryRunStore::~DryRunStore() {
  store_.reset();
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

}  // namespace salient::pipeline
