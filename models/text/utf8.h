// UTF-8 (RFC 3629): decoding, encoding, and repair of ill-formed input.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace salient::models {

// Appends the encoding of `code`, a Unicode scalar value (not a surrogate, below 0x110000).
void append_utf8(std::string& out, char32_t code);

// The code point that starts at byte `position` of well-formed `text`; moves `position` behind it.
char32_t next_code_point(std::string_view text, size_t& position);

// The code point that ends before byte `end` (> 0) of well-formed `text`.
char32_t code_point_before(std::string_view text, size_t end);

// `text` with each maximal ill-formed part replaced by U+FFFD (Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal
// Subparts"; what Python's errors="replace" and Rust's from_utf8_lossy do).
std::string repair_utf8(std::string_view text);
bool is_valid_utf8(std::string_view text);

}  // namespace salient::models
