#include "models/jinja/token_cursor.h"

#include "common/error.h"

namespace salient::models::jinja {

namespace {

constexpr int kMaxNesting = 600;  // calls of the recursive parser functions

}  // namespace

bool TokenCursor::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  next();
  return true;
}

bool TokenCursor::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  next();
  return true;
}

const Token& TokenCursor::expect(TokenKind kind, std::string_view expected) {
  if (current().kind != kind) fail_expected(expected);
  return next();
}

void TokenCursor::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail_expected(fmt::format("'{}'", text));
}

void TokenCursor::expect_name(std::string_view text) {
  if (!skip_name(text)) fail_expected(fmt::format("'{}'", text));
}

void TokenCursor::fail_expected(std::string_view expected) const {
  fail_at(current().line, fmt::format("found {}, expected {}", describe(current()), expected));
}

void TokenCursor::fail_at(int line, std::string_view what) const { fail(ErrorKind::kCorruption, "{}:{}: {}", origin_, line, what); }

void TokenCursor::fail_unsupported(int line, std::string_view what) const {
  fail(ErrorKind::kUnsupported, "{}:{}: {}", origin_, line, what);
}

NestingGuard::NestingGuard(TokenCursor& cursor) : cursor_(cursor) {
  if (cursor_.nesting_ >= kMaxNesting)
    cursor_.fail_unsupported(cursor_.current().line, "blocks or expressions are nested too deep");
  ++cursor_.nesting_;
}

}  // namespace salient::models::jinja
