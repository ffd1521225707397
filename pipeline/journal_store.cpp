#include "pipeline/journal_store.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <vector>

#include "common/error.h"
#include "common/log.h"
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
  journal.find = [&store, fresh](const std::string& key) { return fresh ? std::nullopt : store.find_request(key); };
  // An answer that cannot be kept is no reason to lose the others.
  journal.add = [&store, id, failed = false](std::span<const eval::JournalEntry> entries) mutable {
    if (failed) return;
    std::vector<RequestRow> rows;
    for (const eval::JournalEntry& entry : entries) rows.push_back({entry.key, entry.value});
    try {
      store.put_requests(id, rows);
    } catch (const Error& error) {
      failed = true;
      log_warn("answers are kept no longer, a stopped evaluation would ask them again: {}", error.message());
    }
  };
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
