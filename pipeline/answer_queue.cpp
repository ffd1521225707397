#include "pipeline/answer_queue.h"

#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/log.h"
#include "common/text.h"

namespace salient::pipeline {

AnswerQueue::AnswerQueue(Store& store, int64_t model, std::optional<std::chrono::milliseconds> patience, uint64_t most_bytes)
    : store_(store), model_(model), patience_(patience), most_bytes_(most_bytes) {}

AnswerQueue::~AnswerQueue() {
  try {
    try_store(cancel_requested() ? std::chrono::milliseconds(0) : patience_);
    if (!failed_ && (lost_ > 0 || !waiting_.empty()))
      log_warn("answers_lost store=\"{}\" answers={}: the store stayed locked; a stopped evaluation would ask them again",
               store_.path().string(), lost_ + waiting_.size());
  } catch (const std::exception&) {  // the evaluation has its figures, or an error of its own
  }
}

void AnswerQueue::add(std::span<const eval::JournalEntry> entries) {
  if (failed_) return;
  uint64_t bytes = 0;
  for (const eval::JournalEntry& entry : entries) bytes += entry.key.size() + entry.value.size();
  // What finds room in an unlocked store may be as large as it likes.
  const bool fits = !locked_ || bytes_ + bytes <= most_bytes_;
  if (fits) {
    for (const eval::JournalEntry& entry : entries) {
      const auto [at, is_new] = waiting_.try_emplace(entry.key);
      if (!is_new) bytes_ -= at->first.size() + at->second.size();
      at->second = entry.value;
      bytes_ += at->first.size() + at->second.size();
    }
  } else {
    lost_ += entries.size();
  }
  // Whoever has found it locked does not wait again for every batch of answers: a long lock would cost the evaluation more time
  // than asking them again.
  try_store(locked_ ? std::chrono::milliseconds(0) : patience_);
}

std::optional<std::string> AnswerQueue::find(const std::string& key) const {
  const auto found = waiting_.find(key);
  return found == waiting_.end() ? std::nullopt : std::optional(found->second);
}

void AnswerQueue::try_store(std::optional<std::chrono::milliseconds> patience) {
  if (failed_ || waiting_.empty()) return;
  std::vector<RequestRow> rows;
  rows.reserve(waiting_.size());
  for (const auto& [key, value] : waiting_) rows.push_back({key, value});
  try {
    store_.put_requests(model_, rows, patience);
  } catch (const Error& error) {
    if (error.code() != kStoreLocked) return give_up(error.message());
    locked_ = true;
    if (bytes_ > most_bytes_) {  // what came in one piece before the lock was known
      lost_ += waiting_.size();
      waiting_.clear();
      bytes_ = 0;
    }
    if (!told_)
      log_warn("store_locked store=\"{}\": answers wait until it is free, at most {} of them", store_.path().string(),
               human_bytes(most_bytes_));
    told_ = true;
    return;
  }
  waiting_.clear();
  bytes_ = 0;
  locked_ = false;
}

void AnswerQueue::give_up(std::string_view why) {
  failed_ = true;
  waiting_.clear();
  bytes_ = 0;
  log_warn("answers are kept no longer, a stopped evaluation would ask them again: {}", why);
}

}  // namespace salient::pipeline
