// Answers on their way into the store. Where another process keeps the store locked they wait here, and go in with the next ones.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "eval/request_journal.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// An answer that cannot be kept is no reason to lose the others, nor the evaluation: nothing here throws because of the store. What
// is lost is logged, once.
class AnswerQueue {
 public:
  // Bytes of keys and answers that wait at most; those of a locked store beyond it are lost.
  static constexpr uint64_t kMostBytes = uint64_t{64} << 20;

  // `model`: of Store::answering_model. `patience`: of the first one that finds the store locked, and of the last try; nothing: as
  // long as every writer waits. `store` outlives the queue.
  AnswerQueue(Store& store, int64_t model, std::optional<std::chrono::milliseconds> patience = std::nullopt,
              uint64_t most_bytes = kMostBytes);
  // Tries once more where answers wait; after a stop that was asked for (common/cancellation.h) without patience.
  ~AnswerQueue();
  AnswerQueue(const AnswerQueue&) = delete;
  AnswerQueue& operator=(const AnswerQueue&) = delete;

  // All of them or none, at once in the store where that is not locked. A store that fails otherwise (full disk, damage) is not
  // tried again.
  void add(std::span<const eval::JournalEntry> entries);

  // Of those that wait.
  std::optional<std::string> find(const std::string& key) const;
  size_t waiting() const { return waiting_.size(); }

 private:
  void try_store(std::optional<std::chrono::milliseconds> patience);
  void give_up(std::string_view why);

  Store& store_;
  int64_t model_;
  std::optional<std::chrono::milliseconds> patience_;
  uint64_t most_bytes_;
  std::map<std::string, std::string> waiting_;  // by key
  uint64_t bytes_ = 0;                          // of what waits
  uint64_t lost_ = 0;                           // answers that had no room
  bool locked_ = false;                         // at the last try
  bool told_ = false;                           // that it is
  bool failed_ = false;
};

}  // namespace salient::pipeline
