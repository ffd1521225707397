// The parser's place among the tokens, and the errors that it raises there.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/lexer.h"

namespace salient::models::jinja {

class TokenCursor {
 public:
  TokenCursor(std::vector<Token> tokens, std::string_view origin) : tokens_(std::move(tokens)), origin_(origin) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_]; }
  // The current token; the cursor moves on.
  const Token& next() { return tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]; }

  bool is_operator(std::string_view text) const { return current().kind == TokenKind::kOperator && current().text == text; }
  bool is_name(std::string_view text) const { return current().kind == TokenKind::kName && current().text == text; }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  // Errors of these: corruption, with what was found instead.
  const Token& expect(TokenKind kind, std::string_view expected);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);

  [[noreturn]] void fail_expected(std::string_view expected) const;
  [[noreturn]] void fail_at(int line, std::string_view what) const;
  [[noreturn]] void fail_unsupported(int line, std::string_view what) const;

 private:
  friend class NestingGuard;
  std::vector<Token> tokens_;
  std::string_view origin_;
  size_t position_ = 0;
  int nesting_ = 0;
};

// Bounds the parser's recursion while it lives. Errors: unsupported.
class NestingGuard {
 public:
  explicit NestingGuard(TokenCursor& cursor);
  ~NestingGuard() { --cursor_.nesting_; }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;

 private:
  TokenCursor& cursor_;
};

}  // namespace salient::models::jinja
