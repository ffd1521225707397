// The "pattern" of a tokenizer.json: {"String": "..."} or {"Regex": "..."}.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/json.h"
#include "models/text/regex.h"

namespace salient::models {

class TextPattern {
 public:
  // Reads object[key]. Errors: corruption, naming `where` and the key.
  static TextPattern from_json(const Json& object, std::string_view key, std::string_view where);

  // All matches from left to right, not overlapping. An empty string matches between all characters.
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  explicit TextPattern(std::variant<std::string, Regex> pattern) : pattern_(std::move(pattern)) {}

  std::variant<std::string, Regex> pattern_;
};

// The one code point of object[key]. Errors: corruption.
char32_t require_character(const Json& object, std::string_view key, std::string_view where);

// `where.key[index]`, for the errors of nested parts.
std::string element_name(std::string_view where, std::string_view key, size_t index);

}  // namespace salient::models
