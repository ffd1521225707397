// Template text to tokens, with Jinja2's white space rules: what Syntax asks for, "-" strips white space on its side, "+" keeps it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/jinja/syntax.h"

namespace salient::models::jinja {

enum class TokenKind {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // of data, names and operators; the unescaped value of strings
  std::variant<int64_t, double> number = int64_t{0};
};

// What the token is, for an error text: "name 'foo'", "'}}'", "end of template".
std::string describe(const Token& token);

// The last token is kEnd. Errors: corruption (unbalanced brackets, unknown characters, comments and raw blocks without end, bad
// string escapes, invalid UTF-8), unsupported (integers over 64 bits), as "<origin>:<line>: <what>".
std::vector<Token> tokenize(std::string_view source, std::string_view origin, const Syntax& syntax = {});

}  // namespace salient::models::jinja
