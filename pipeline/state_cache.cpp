#include "pipeline/state_cache.h"

#include <fstream>
#include <sstream>

#include "common/error.h"
#include "common/log.h"
#include "pipeline/current_error.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

StateCache* current_cache = nullptr;

void remove_contents(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) fs::remove_all(entry.path());
}

// The first of the folders that no other process works with.
FolderLock take_folder(const fs::path& parent) {
  for (int number = 1;; ++number) {
    const fs::path folder = parent / std::to_string(number);
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail_errno(folder, "create", error.value());
    if (std::optional<FolderLock> lock = FolderLock::try_lock(folder)) {
      remove_contents(folder);
      return std::move(*lock);
    }
  }
}

}  // namespace

StateCache::StateCache(const Store& store) {
  try {
    lock_.emplace(take_folder(fs::absolute(store.path()).parent_path() / "cache" / "states"));
  } catch (...) {
    log_warn("hidden states of the base are not kept, it runs beside each model: {}", current_error().message());
  }
  current_cache = this;
}

StateCache::~StateCache() {
  current_cache = nullptr;
  if (!lock_) return;
  std::error_code ignored;
  fs::remove_all(lock_->folder(), ignored);
  fs::remove(lock_->folder().parent_path(), ignored);  // where it was the last
}

StateCache* StateCache::current() { return current_cache; }

std::optional<std::string> StateCache::find(const std::string& key) const {
  if (!lock_) return std::nullopt;
  std::ifstream file(lock_->folder() / key, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return file ? std::optional(std::move(bytes).str()) : std::nullopt;
}

void StateCache::keep(const std::string& key, std::string_view bytes) {
  if (!lock_ || bytes_ + bytes.size() > kMostBytes) return;
  try {
    if (static_cast<double>(bytes.size()) > (1 - kFreeShare) * static_cast<double>(free_disk_bytes(lock_->folder()))) return;
    write_file(lock_->folder() / key, bytes);
    bytes_ += bytes.size();
  } catch (const Error& error) {
    bytes_ = kMostBytes;
    log_warn("hidden states of the base are kept no longer: {}", error.message());
  }
}

}  // namespace salient::pipeline
