// Python's view of text (sequences of code points) over UTF-8: positions, classes, case and repr().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace salient::models::jinja {

bool is_valid_utf8(std::string_view text);

// The code point that starts at `position`, which is moved behind it. `text` is valid UTF-8.
char32_t next_code_point(std::string_view text, size_t& position);
void append_code_point(std::string& text, char32_t code_point);

size_t count_code_points(std::string_view text);
// Byte offset of code point number `index`; text.size() when there are fewer.
size_t offset_of(std::string_view text, size_t index);
std::vector<std::string_view> split_code_points(std::string_view text);

// str.isspace() of one code point; also what \s matches in Python's regular expressions.
bool is_space(char32_t code_point);
bool is_word(char32_t code_point);        // \w
bool is_alphabetic(char32_t code_point);  // str.isalpha()
bool is_decimal(char32_t code_point);     // str.isdecimal()
bool is_upper(char32_t code_point);
bool is_lower(char32_t code_point);
bool is_cased(char32_t code_point);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string capitalize(std::string_view text);  // str.capitalize()
std::string title_case(std::string_view text);  // str.title()

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
// With `chars`: any of its code points is removed. Without (nullptr): white space.
std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right);

// str.splitlines(): \n, \r, \r\n, \v, \f, \x1c-\x1e, \x85, U+2028, U+2029.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

// text.find(part, from), in a time that grows with the text's length alone.
size_t find_text(std::string_view text, std::string_view part, size_t from = 0);
// text.rfind(part), likewise.
size_t find_last_text(std::string_view text, std::string_view part);
std::string replace_all(std::string_view text, std::string_view from, std::string_view to, int64_t count);

// repr() of a str: 'it', "it's", '\n', '\x7f'.
std::string quote(std::string_view text);
// & < > ' " as markupsafe.escape() writes them.
std::string escape_html(std::string_view text);

// repr() of a float: shortest digits that read back equal; exponent below 1e-4 and from 1e16 on.
std::string format_float(double value);

}  // namespace salient::models::jinja
