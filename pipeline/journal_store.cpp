#include "pipeline/journal_store.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <memory>

#include "pipeline/answer_queue.h"
#include "pipeline/state_cache.h"

namespace salient::pipeline {

eval::RequestJournal make_journal(Store& store, const std::string& model_hash, const eval::LanguageModel& model, bool fresh) {
  const models::DecoderOptions& options = model.decoder.options();
  eval::RequestJournal journal;
  const std::string runtime = fmt::format("{} {} a{} kv{}", c10::toString(options.dtype), options.device.str(),
                                          options.activation_bits.value_or(16), options.kv_bits.value_or(16));
  journal.model = fmt::format("{} {}", model_hash, runtime);
  const int64_t id = store.answering_model({.name = model.name,
                                            .path = std::filesystem::absolute(model.folder).lexically_normal().string(),
                                            .hash = model_hash,
                                            .runtime = runtime,
                                            .used = {}});
  // It goes with the last copy of the journal, and what still waits in it then is tried once more.
  const auto queue = std::make_shared<AnswerQueue>(store, id);
  journal.find = [&store, queue, fresh](const std::string& key) -> std::optional<std::string> {
    if (fresh) return std::nullopt;
    if (std::optional<std::string> waiting = queue->find(key)) return waiting;
    return store.find_request(key);
  };
  journal.add = [queue](std::span<const eval::JournalEntry> entries) { queue->add(entries); };
  if (StateCache::current() != nullptr) {
    journal.find_states = [](const std::string& key) {
      const StateCache* cache = StateCache::current();
      return cache != nullptr ? cache->find(key) : std::nullopt;
    };
    journal.keep_states = [](const std::string& key, std::string_view bytes) {
      if (StateCache* cache = StateCache::current()) cache->keep(key, bytes);
    };
  }
  return journal;
}

}  // namespace salient::pipeline
