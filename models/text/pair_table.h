// A read-mostly hash table from pairs of token ids to merges: one probe per pair is the inner loop of byte-pair encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "models/text/tokenizer.h"

namespace salient::models {

struct Merge {
  uint32_t rank;   // place in the list of merges; lower goes first
  TokenId merged;  // the id of the joined token
};

// Open addressing with linear probing; at most half full.
class PairTable {
 public:
  // Room for `count` pairs. Call before insert.
  void reserve(size_t count) {
    size_t capacity = 16;
    while (capacity < count * 2) capacity *= 2;
    slots_.assign(capacity, Slot{});
  }

  // A pair that is already there gets the new merge. `left` and `right` are not negative.
  void insert(TokenId left, TokenId right, Merge merge) { slots_[position(key_of(left, right))] = {key_of(left, right), merge}; }

  // Null when the pair does not merge.
  const Merge* find(TokenId left, TokenId right) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[position(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t key_of(TokenId left, TokenId right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }

  size_t position(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    uint64_t mixed = key * 0x9E3779B97F4A7C15ULL;  // Fibonacci hashing
    size_t at = (mixed ^ (mixed >> 32)) & mask;
    while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace salient::models
