// A part of the input on its way to ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include "models/text/regex.h"
#include "models/text/tokenizer.h"

namespace salient::models {

struct Piece {
  std::string text;           // well-formed UTF-8
  std::optional<TokenId> id;  // an added token: later steps leave it alone

  // Metaspace's prepend_scheme "first" asks whether a piece stems from the very start of the input, normalized or not.
  bool at_input_start = false;
  size_t first_bytes = 0;  // leading bytes of `text` that stem from the input's first character; 0 unless at_input_start

  // The bytes [range.begin, range.end) of this piece as one of their own.
  Piece slice(TextRange range) const {
    Piece part;
    part.text = text.substr(range.begin, range.end - range.begin);
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
