// Character classes and normalization forms as the `tokenizers` library (0.23) sees them.
//
// That library mixes several versions of Unicode: its regular expressions know Unicode 16, lower case and numbers Unicode 17,
// normalization and punctuation versions before 12. utf8proc and PCRE2 know others, depending on the system. The differences are
// tables in unicode_tables.h, so that ids depend neither on the system's libraries nor on their age.
#pragma once

#include <string>
#include <string_view>

namespace salient::models {

bool is_white_space(char32_t code);     // White_Space: what \s and str::trim mean
bool is_numeric(char32_t code);         // general category N
bool is_punctuation(char32_t code);     // ASCII punctuation and symbols, general category P
bool is_combining_mark(char32_t code);  // general category M

// Appends the lower case of `code`, with one code point for each but U+0130 and without regard to its neighbours (no final sigma).
void append_lower_case(std::string& out, char32_t code);

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };
// Unicode Standard Annex 15. Linear in the text but for the sorting of marks. `text` is well-formed.
std::string normalize(std::string_view text, NormalizationForm form);

// `text` with every code point whose properties differ between Unicode 14 and 16 (or that came later) replaced by one of Unicode 14
// with the properties of Unicode 16 and equally many bytes: offsets stay the same, and any PCRE2 from 10.40 on classifies as
// Unicode 16 does.
std::string with_stand_ins(std::string_view text);

}  // namespace salient::models
