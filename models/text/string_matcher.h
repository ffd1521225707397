// Finds any of many strings in a text, leftmost first and of those the longest.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/text/regex.h"

namespace salient::models {

// A byte trie. Not for large vocabularies of long strings: the search looks at each start anew.
class StringMatcher {
 public:
  struct Match {
    TextRange range;
    int32_t value;
  };

  // Empty strings are ignored; of equal strings the first wins.
  void add(std::string_view text, int32_t value);
  // Matches from left to right, not overlapping.
  std::vector<Match> find_all(std::string_view text) const;

 private:
  static uint64_t edge(uint32_t node, uint8_t byte) { return (uint64_t{node} << 8) | byte; }

  std::array<bool, 256> starts_{};  // bytes that begin a string
  std::unordered_map<uint64_t, uint32_t> children_;
  std::vector<int32_t> values_{-1};  // of each node; -1: no string ends here
};

}  // namespace salient::models
