// Tokens to a syntax tree, by Jinja2's grammar (version 3.1) with its loop controls and transformers' generation block.
#pragma once

#include <string_view>
#include <vector>

#include "models/jinja/ast.h"
#include "models/jinja/syntax.h"

namespace salient::models::jinja {

// Errors, as "<origin>:<line>: <what was found and expected>": corruption for syntax; unsupported for include, import, extends,
// block and autoescape, unknown tags, filters and tests, and for nesting beyond the limits.
Body parse_template(std::string_view source, std::string_view origin, const Syntax& syntax = {});

}  // namespace salient::models::jinja
