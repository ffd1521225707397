#include "models/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "common/error.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

// Jinja2 reads every kind of newline as \n, and may drop one at the end of the template.
std::string normalize_newlines(std::string_view source, bool keep_last) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      text += '\n';
    } else {
      text += source[i];
    }
  }
  if (!keep_last && !text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_byte(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0; }

constexpr std::array<std::string_view, 6> kLongOperators = {"//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kShortOperators = "+-/*%~[](){}><=.:|,;";

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view origin, const Syntax& syntax)
      : text_(normalize_newlines(source, syntax.keep_trailing_newline)), origin_(origin), syntax_(syntax) {}

  std::vector<Token> run() {
    while (position_ < text_.size()) lex_root();
    push(TokenKind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kCorruption, "{}:{}: {}", origin_, line_, fmt::format(format, std::forward<Args>(args)...));
  }

  bool looking_at(std::string_view what) const { return std::string_view(text_).substr(position_, what.size()) == what; }

  void advance_to(size_t position) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  size_t skip_space(size_t position) const { return text_.size() - strip_left(std::string_view(text_).substr(position)).size(); }

  Token& push(TokenKind kind, std::string text) { return tokens_.emplace_back(Token{kind, line_, std::move(text)}); }

  // Pushes the text before a tag, stripped as the tag's sign and kind ask.
  void push_data(std::string_view data, char sign, bool block) {
    if (sign == '-') {
      data = strip_right(data);
    } else if (sign != '+' && block && syntax_.lstrip_blocks) {
      const size_t line_start = data.rfind('\n') + 1;  // npos + 1 is 0
      if ((line_start > 0 || line_starting_) && line_start < data.size() && strip_left(data.substr(line_start)).empty()) {
        data = data.substr(0, line_start);
      }
    }
    if (!data.empty()) push(TokenKind::kData, std::string(data));
  }

  // Text up to the next tag, and the tag.
  void lex_root() {
    size_t tag = position_;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= text_.size()) {
        push(TokenKind::kData, text_.substr(position_));
        advance_to(text_.size());
        return;
      }
      const char kind = text_[tag + 1];
      if (kind == '%' || kind == '{' || kind == '#') break;
    }
    const char kind = text_[tag + 1];
    size_t after = tag + 2;
    char sign = 0;
    if (after < text_.size() && (text_[after] == '-' || text_[after] == '+')) sign = text_[after++];
    push_data(std::string_view(text_).substr(position_, tag - position_), sign, kind != '{');
    advance_to(after);
    line_starting_ = false;
    if (kind == '#') return lex_comment();
    if (kind == '%' && lex_raw()) return;
    push(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, {});
    lex_tag(kind == '%');
  }

  // The end of a block or comment whose closing mark starts at `at`: consumes "-%}" and white space, "+%}", or "%}" and what
  // trim_blocks takes. 0 when there is no such end.
  size_t block_end(size_t at, std::string_view mark) const {
    const auto has = [&](size_t position) { return std::string_view(text_).substr(position, 2) == mark; };
    if (at < text_.size() && text_[at] == '-' && has(at + 1)) return skip_space(at + 3);
    if (at < text_.size() && text_[at] == '+' && has(at + 1)) return at + 3;
    if (!has(at)) return 0;
    return syntax_.trim_blocks && at + 2 < text_.size() && text_[at + 2] == '\n' ? at + 3 : at + 2;
  }

  void finish_tag(size_t end) {
    advance_to(end);
    line_starting_ = text_[end - 1] == '\n';
  }

  void lex_comment() {
    for (size_t at = position_; at < text_.size(); ++at) {
      if (const size_t end = block_end(at, "#}")) return finish_tag(end);
    }
    fail_here("a comment that starts here has no end; expected '#}}'");
  }

  bool lex_raw() {
    size_t at = skip_space(position_);
    if (std::string_view(text_).substr(at, 3) != "raw") return false;
    at = skip_space(at + 3);
    if (std::string_view(text_).substr(at, 3) == "-%}") {
      at = skip_space(at + 3);
    } else if (std::string_view(text_).substr(at, 2) == "%}") {
      at += 2;
    } else {
      return false;
    }
    finish_tag(at);
    for (size_t tag = text_.find("{%", position_); tag != std::string::npos; tag = text_.find("{%", tag + 1)) {
      size_t word = tag + 2;
      char sign = 0;
      if (word < text_.size() && (text_[word] == '-' || text_[word] == '+')) sign = text_[word++];
      word = skip_space(word);
      if (std::string_view(text_).substr(word, 6) != "endraw") continue;
      const size_t end = block_end(skip_space(word + 6), "%}");
      if (end == 0) continue;
      push_data(std::string_view(text_).substr(position_, tag - position_), sign, true);
      finish_tag(end);
      return true;
    }
    fail_here("a raw block that starts here has no end; expected '{{% endraw %}}'");
  }

  void lex_tag(bool block) {
    std::string open;  // closing marks still expected
    while (position_ < text_.size()) {
      if (open.empty()) {
        const size_t end = block ? block_end(position_, "%}") : variable_end();
        if (end != 0) {
          push(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, {});
          return finish_tag(end);
        }
      }
      if (const size_t next = skip_space(position_); next != position_) {
        advance_to(next);
      } else if (is_digit(text_[position_])) {
        lex_number();
      } else if (is_name_byte(text_[position_])) {
        size_t end = position_;
        while (end < text_.size() && is_name_byte(text_[end])) ++end;
        push(TokenKind::kName, text_.substr(position_, end - position_));
        advance_to(end);
      } else if (text_[position_] == '\'' || text_[position_] == '"') {
        lex_string();
      } else {
        lex_operator(open);
      }
    }
  }

  size_t variable_end() const {
    if (looking_at("-}}")) return skip_space(position_ + 3);
    return looking_at("}}") ? position_ + 2 : 0;
  }

  // Digits with single underscores between them, from `at`; returns the end, `at` when there are none.
  size_t digits_end(size_t at) const {
    size_t end = at;
    while (end < text_.size() &&
           (is_digit(text_[end]) || (text_[end] == '_' && end > at && end + 1 < text_.size() && is_digit(text_[end + 1]))))
      ++end;
    return end;
  }

  // The end of a float literal at the position, 0 when there is none. "1." and ".5" are not floats, nor is what follows a dot
  // (a.0.1).
  size_t float_end() const {
    if (position_ > 0 && text_[position_ - 1] == '.') return 0;
    const size_t whole = digits_end(position_);
    size_t end = whole;
    if (end < text_.size() && text_[end] == '.') {
      const size_t fraction = digits_end(end + 1);
      if (fraction != end + 1) end = fraction;
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      const size_t exponent_end = digits_end(exponent);
      if (exponent_end != exponent) return exponent_end;
    }
    return end == whole ? 0 : end;
  }

  void lex_number() {
    const auto without_underscores = [&](size_t from, size_t to) {
      std::string digits = text_.substr(from, to - from);
      std::erase(digits, '_');
      return digits;
    };
    if (const size_t end = float_end()) {
      const std::string digits = without_underscores(position_, end);
      push(TokenKind::kFloat, digits).number = std::strtod(digits.c_str(), nullptr);
      return advance_to(end);
    }
    int base = 10;
    size_t start = position_, end = 0;
    const char prefix =
        position_ + 1 < text_.size() && text_[position_] == '0' ? static_cast<char>(text_[position_ + 1] | 0x20) : '0';
    if (prefix == 'x' || prefix == 'o' || prefix == 'b') {
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2;
      const auto valid = [&](size_t at) {
        return at < text_.size() &&
               std::string_view("0123456789abcdef")
                       .substr(0, static_cast<size_t>(base))
                       .find(static_cast<char>(is_digit(text_[at]) ? text_[at] : text_[at] | 0x20)) != std::string_view::npos;
      };
      start = end = position_ + 2;
      while (valid(end) || (end < text_.size() && text_[end] == '_' && valid(end + 1))) ++end;
    }
    if (end == start || base == 10) {
      base = 10;
      start = position_;
      end = digits_end(start);
      if (text_[start] == '0') {  // 0 and 00, but 01 is two tokens
        end = start;
        while (end < text_.size() && (text_[end] == '0' || (text_[end] == '_' && end + 1 < text_.size() && text_[end + 1] == '0')))
          ++end;
      }
    }
    const std::string digits = without_underscores(start, end);
    int64_t value = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), value, base).ec != std::errc()) {
      fail(ErrorKind::kUnsupported, "{}:{}: the integer {} does not fit in 64 bits", origin_, line_, digits);
    }
    push(TokenKind::kInteger, digits).number = value;
    advance_to(end);
  }

  void lex_string() {
    const char mark = text_[position_];
    size_t end = position_ + 1;
    while (end < text_.size() && text_[end] != mark) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail_here("a string that starts here has no end; expected {}", mark);
    std::string value = unescape(std::string_view(text_).substr(position_ + 1, end - position_ - 1));
    push(TokenKind::kString, std::move(value));
    advance_to(end + 1);
  }

  // The escapes of Python's string literals; unknown ones stay as they are.
  std::string unescape(std::string_view raw) const {
    std::string out;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        out += raw[i];
        continue;
      }
      const char kind = raw[++i];
      constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      if (const size_t simple = kFrom.find(kind); simple != std::string_view::npos) {
        out += kTo[simple];
      } else if (kind == '\n') {
        continue;
      } else if (kind >= '0' && kind <= '7') {
        char32_t code_point = 0;
        size_t used = 0;
        for (; used < 3 && i + used < raw.size() && raw[i + used] >= '0' && raw[i + used] <= '7'; ++used)
          code_point = code_point * 8 + static_cast<char32_t>(raw[i + used] - '0');
        i += used - 1;
        append_code_point(out, code_point);
      } else if (kind == 'x' || kind == 'u' || kind == 'U') {
        const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
        unsigned value = 0;
        const std::string_view hex = raw.substr(std::min(i + 1, raw.size()), digits);
        const auto [last, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
        if (error != std::errc() || last != hex.data() + digits)
          fail_here("the escape \\{}{} needs {} hexadecimal digits", kind, hex, digits);
        if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) fail_here("the escape \\{}{} is not a character", kind, hex);
        append_code_point(out, value);
        i += digits;
      } else if (kind == 'N') {
        fail(ErrorKind::kUnsupported, "{}:{}: character names in strings (\\N{{...}}) are not supported", origin_, line_);
      } else {
        out += '\\';
        out += kind;
      }
    }
    return out;
  }

  void lex_operator(std::string& open) {
    for (const std::string_view longer : kLongOperators) {
      if (looking_at(longer)) {
        push(TokenKind::kOperator, std::string(longer));
        return advance_to(position_ + 2);
      }
    }
    const char c = text_[position_];
    if (kShortOperators.find(c) == std::string_view::npos)
      fail_here("found the character {} where an expression was expected", quote(std::string(1, c)));
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail_here("found '{}' that closes nothing", c);
      if (open.back() != c) fail_here("found '{}', expected '{}'", c, open.back());
      open.pop_back();
    }
    push(TokenKind::kOperator, std::string(1, c));
    advance_to(position_ + 1);
  }

  std::string text_;
  std::string_view origin_;
  Syntax syntax_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // whether the text before the position ends a line
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData: return "template text";
    case TokenKind::kVariableBegin: return "'{{'";
    case TokenKind::kVariableEnd: return "'}}'";
    case TokenKind::kBlockBegin: return "'{%'";
    case TokenKind::kBlockEnd: return "'%}'";
    case TokenKind::kName: return fmt::format("name '{}'", token.text);
    case TokenKind::kString: return fmt::format("string {}", quote(token.text));
    case TokenKind::kInteger:
    case TokenKind::kFloat: return fmt::format("number {}", token.text);
    case TokenKind::kOperator: return fmt::format("'{}'", token.text);
    case TokenKind::kEnd: return "the end of the template";
  }
  return "a token";
}

std::vector<Token> tokenize(std::string_view source, std::string_view origin, const Syntax& syntax) {
  if (!is_valid_utf8(source)) fail(ErrorKind::kCorruption, "{}: the template is not valid UTF-8", origin);
  return Lexer(source, origin, syntax).run();
}

}  // namespace salient::models::jinja
