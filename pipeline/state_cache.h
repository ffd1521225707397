// Hidden states of a base that several models are compared with one after another, in files beside the store, so that it runs over
// a text once (eval/request_journal.h). Bounded; gone when the work is done.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "common/file.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// While one lives, journals that are made in this process (journal_store.h) keep states in it. One at a time; outlives them.
class StateCache {
 public:
  static constexpr uint64_t kMostBytes = uint64_t{16} << 30;
  // Of the disk's free bytes, this share stays free.
  static constexpr double kFreeShare = 0.5;

  // Takes a folder of its own below `cache/states` beside the store, and removes what a process that died left there. Where that is
  // not possible nothing is kept, which is logged.
  explicit StateCache(const Store& store);
  ~StateCache();
  StateCache(const StateCache&) = delete;
  StateCache& operator=(const StateCache&) = delete;

  // Null where none lives.
  static StateCache* current();

  // Nothing where it is not there. `key`: as of a JournalKey.
  std::optional<std::string> find(const std::string& key) const;
  // What no longer fits or cannot be written is not kept.
  void keep(const std::string& key, std::string_view bytes);

 private:
  std::optional<FolderLock> lock_;
  uint64_t bytes_ = 0;
};

}  // namespace salient::pipeline
