// The Unicode rules that metric definitions inherit from Python's str: what is whitespace, a word character, lower case. Evaluation
// harnesses are written in Python, so equal scores need equal rules.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace salient::eval {

// Code points of UTF-8 text; ill-formed parts become U+FFFD.
std::vector<char32_t> to_code_points(std::string_view text);
std::string to_utf8(const std::vector<char32_t>& code_points);
int64_t count_code_points(std::string_view text);

// str.isspace of one character: White_Space plus the separators U+001C..U+001F.
bool is_space(char32_t c);
// What \w of Python's re matches: letters, numbers of every kind, underscore. Combining marks are not among them.
bool is_word(char32_t c);
// Whether unicodedata.category begins with P.
bool is_punctuation(char32_t c);
// str.lower, except that a final capital sigma becomes a plain small sigma (Python: the final form).
std::string to_lower(std::string_view text);
// str.rstrip().
std::string_view trim_right(std::string_view text);

}  // namespace salient::eval
