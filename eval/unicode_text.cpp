#include "eval/unicode_text.h"

#include <utf8proc.h>

#include "models/text/unicode.h"
#include "models/text/utf8.h"

namespace salient::eval {

std::vector<char32_t> to_code_points(std::string_view text) {
  const std::string well_formed = models::repair_utf8(text);
  std::vector<char32_t> out;
  out.reserve(well_formed.size());
  for (size_t at = 0; at < well_formed.size();) out.push_back(models::next_code_point(well_formed, at));
  return out;
}

std::string to_utf8(const std::vector<char32_t>& code_points) {
  std::string out;
  for (const char32_t c : code_points) models::append_utf8(out, c);
  return out;
}

int64_t count_code_points(std::string_view text) { return static_cast<int64_t>(to_code_points(text).size()); }

bool is_space(char32_t c) { return models::is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

bool is_word(char32_t c) {
  if (c == '_' || models::is_numeric(c)) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return true;
    default: return false;
  }
}

bool is_punctuation(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return true;
    default: return false;
  }
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : to_code_points(text)) models::append_lower_case(out, c);
  return out;
}

std::string_view trim_right(std::string_view text) {
  size_t kept = 0;
  for (size_t at = 0; at < text.size();) {
    // Ill-formed bytes are no white space, so only well-formed sequences need decoding.
    size_t next = at + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
    const auto character = to_code_points(text.substr(at, next - at));
    if (character.size() != 1 || !is_space(character.front())) kept = next;
    at = next;
  }
  return text.substr(0, kept);
}

}  // namespace salient::eval
