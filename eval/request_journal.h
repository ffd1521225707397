// What a model has answered so far, kept so that a stopped evaluation goes on where it was and never asks twice.
//
// A request is known by the SHA-256 of everything that its answer follows from: the model's identity, the method with its settings,
// and the tokens. Answers come in units that are computed alike whatever else runs, so a resumed evaluation gives the same bytes: a
// tree of inputs, a generation, or, where rows are padded, a batch. Generations of mixtures and in 16 bits may depend on what ran
// beside them by rounding (models/decoder/ragged_batch.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/hash.h"
#include "models/text/tokenizer.h"

namespace salient::eval {

struct JournalEntry {
  std::string key;
  std::string value;  // bytes
};

struct RequestJournal {
  std::string model;  // its weights' hash and all that changes its figures: dtype, device, bits
  std::function<std::optional<std::string>(const std::string& key)> find;
  std::function<void(std::span<const JournalEntry> entries)> add;  // all of them or none, at once on disk
  // What is too large to be an answer, and serves other models that are compared with this one: hidden states, as bytes. Both may
  // be empty; what was kept may be gone.
  std::function<std::optional<std::string>(const std::string& key)> find_states;
  std::function<void(const std::string& key, std::string_view bytes)> keep_states;
};

// Call order: add* hex. Texts and ids are told apart by their lengths; of a list of them, add its length before.
class JournalKey {
 public:
  JournalKey(const RequestJournal& journal, std::string_view method);
  JournalKey& add(std::string_view text);
  JournalKey& add(int64_t number);
  JournalKey& add(double number);
  JournalKey& add(std::span<const models::TokenId> ids);
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

// Numbers as the bytes of an entry, in this machine's order.
std::string float_bytes(std::span<const float> values);
// Nothing where it is not `count` numbers.
std::optional<std::vector<float>> parse_floats(std::string_view bytes, size_t count);

}  // namespace salient::eval
