#include "eval/request_journal.h"

#include <cstring>

namespace salient::eval {

namespace {
// Raised with every change after which a model gives other figures: answers from before are then asked anew.
constexpr int64_t kJournalFormat = 2;
}  // namespace

JournalKey::JournalKey(const RequestJournal& journal, std::string_view method) {
  add(journal.model).add(method).add(std::string_view(SALIENT_VERSION)).add(kJournalFormat);
}

JournalKey& JournalKey::add(std::string_view text) {
  add(static_cast<int64_t>(text.size()));
  hash_.update(text);
  return *this;
}

JournalKey& JournalKey::add(int64_t number) {
  hash_.update(std::as_bytes(std::span(&number, 1)));
  return *this;
}

JournalKey& JournalKey::add(double number) {
  hash_.update(std::as_bytes(std::span(&number, 1)));
  return *this;
}

JournalKey& JournalKey::add(std::span<const models::TokenId> ids) {
  add(static_cast<int64_t>(ids.size()));
  hash_.update(std::as_bytes(ids));
  return *this;
}

std::string float_bytes(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<std::vector<float>> parse_floats(std::string_view bytes, size_t count) {
  if (bytes.size() != count * sizeof(float)) return std::nullopt;
  std::vector<float> values(count);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace salient::eval
