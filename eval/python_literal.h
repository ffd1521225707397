// Python literals, as templates print lists: ['one', "it's", 2, None]. What ast.literal_eval reads of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/json.h"

namespace salient::eval {

// Strings (with escapes; no prefixes, no triple quotes), integers, floats, True, False, None, lists, tuples (as lists), dicts with
// string keys. Nothing where the text is something else.
std::optional<Json> parse_python_literal(std::string_view text);

// str() of a value: strings as they are, the rest as Python prints them: ['one', "it's", 2, None].
std::string python_text(const Json& value);

}  // namespace salient::eval
