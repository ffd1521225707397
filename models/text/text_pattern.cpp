#include "models/text/text_pattern.h"

#include "common/error.h"
#include "models/text/utf8.h"

namespace salient::models {

TextPattern TextPattern::from_json(const Json& object, std::string_view key, std::string_view where) {
  const Json pattern = require<Json>(object, key, where);
  const std::string inner = fmt::format("{}.{}", where, key);
  if (pattern.is_object() && pattern.contains("String")) {
    std::string text = require<std::string>(pattern, "String", inner);
    if (text.empty()) return TextPattern(Regex("", inner));
    return TextPattern(std::move(text));
  }
  if (pattern.is_object() && pattern.contains("Regex"))
    return TextPattern(Regex(require<std::string>(pattern, "Regex", inner), inner));
  fail(ErrorKind::kCorruption, "{}: found {}, expected {{\"String\": ...}} or {{\"Regex\": ...}}", inner,
       dump_json(pattern).substr(0, 60));
}

std::vector<TextRange> TextPattern::find_all(std::string_view text) const {
  if (const auto* regex = std::get_if<Regex>(&pattern_)) return regex->find_all(text);
  const std::string& wanted = std::get<std::string>(pattern_);
  std::vector<TextRange> matches;
  for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, at + wanted.size())) {
    matches.push_back({at, at + wanted.size()});
  }
  return matches;
}

char32_t require_character(const Json& object, std::string_view key, std::string_view where) {
  const std::string text = require<std::string>(object, key, where);
  size_t end = 0;
  const char32_t code = text.empty() ? 0 : next_code_point(text, end);
  if (text.empty() || end != text.size()) {
    fail(ErrorKind::kCorruption, "{}: key '{}': found '{}', expected one character", where, key, text);
  }
  return code;
}

std::string element_name(std::string_view where, std::string_view key, size_t index) {
  return fmt::format("{}.{}[{}]", where, key, index);
}

}  // namespace salient::models
