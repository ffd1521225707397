// A part of the input on its way to ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>

#include "common/error.h"
#include "models/text/regex.h"
#include "models/text/tokenizer.h"

namespace salient::models {

// The most bytes that a tokenizer.json may make of `input` bytes of text before it splits them into tokens: far more than any real
// one does, far less than a hostile one can by doubling the text in each step.
constexpr size_t most_built_bytes(size_t input) { return 32 * input + (size_t{1} << 20); }

// Errors: corruption.
inline void check_built(size_t built, size_t most) {
  if (built <= most) return;
  fail(ErrorKind::kCorruption, "tokenizer.json: its normalizer and pre-tokenizer make {} bytes of a text, expected at most {}",
       built, most);
}

struct Piece {
  std::string text;           // well-formed UTF-8
  std::optional<TokenId> id;  // an added token: later steps leave it alone

  // Metaspace's prepend_scheme "first" asks whether a piece stems from the very start of the input, normalized or not.
  bool at_input_start = false;
  size_t most_bytes = std::numeric_limits<size_t>::max();  // that a normalizer may make of it
  size_t first_bytes = 0;  // leading bytes of `text` that stem from the input's first character; 0 unless at_input_start

  // The bytes [range.begin, range.end) of this piece as one of their own.
  Piece slice(TextRange range) const {
    Piece part;
    part.text = text.substr(range.begin, range.end - range.begin);
    part.most_bytes = most_bytes;
    part.at_input_start = at_input_start && range.begin < first_bytes;
    part.first_bytes = part.at_input_start ? std::min(range.end, first_bytes) - range.begin : 0;
    return part;
  }

  // Puts `prefix` in front; it counts as part of the first character.
  void prepend(const std::string& prefix) {
    if (text.empty()) return;
    text.insert(0, prefix);
    if (first_bytes > 0) first_bytes += prefix.size();
  }
};

}  // namespace salient::models
