#include "pipeline/state_cache.h"

#include <fstream>
#include <sstream>
#include <vector>

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

// Nothing where another process works with it, or has just removed it.
std::optional<FolderLock> try_take(const fs::path& folder) {
  try {
    return FolderLock::try_lock(folder);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return std::nullopt;
    throw;
  }
}

// The first of the folders that no other process works with.
FolderLock take_folder(const fs::path& parent) {
  for (int number = 1;; ++number) {
    const fs::path folder = parent / std::to_string(number);
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail_errno(folder, "create", error.value());
    if (std::optional<FolderLock> lock = try_take(folder)) {
      remove_contents(folder);
      return std::move(*lock);
    }
  }
}

// Of processes that worked beside others and died: nobody may come to their numbers again.
void remove_abandoned(const fs::path& parent, const fs::path& own) {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(parent)) {
    if (entry.path() != own && entry.is_directory()) folders.push_back(entry.path());
  }
  for (const fs::path& folder : folders) {
    if (const std::optional<FolderLock> lock = try_take(folder)) fs::remove_all(folder);
  }
}

}  // namespace

StateCache::StateCache(const Store& store) {
  try {
    const fs::path parent = fs::absolute(store.path()).parent_path() / "cache" / "states";
    lock_.emplace(take_folder(parent));
    remove_abandoned(parent, lock_->folder());
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
