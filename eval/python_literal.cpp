#include "eval/python_literal.h"

#include <charconv>

#include "models/jinja/text.h"
#include "models/text/utf8.h"

namespace salient::eval {
namespace {

constexpr int kDeepest = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<Json> run() {
    Json value;
    skip();
    if (!read_value(value, 0)) return std::nullopt;
    skip();
    if (at_ != text_.size()) return std::nullopt;
    return value;
  }

 private:
  void skip() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  bool read_value(Json& out, int depth) {
    skip();
    if (depth > kDeepest || at_ >= text_.size()) return false;
    const char c = text_[at_];
    if (c == '[' || c == '(') return read_list(out, c == '[' ? ']' : ')', depth);
    if (c == '{') return read_dict(out, depth);
    if (c == '\'' || c == '"') return read_string(out);
    if (take_word("True")) return (out = true), true;
    if (take_word("False")) return (out = false), true;
    if (take_word("None")) return (out = nullptr), true;
    return read_number(out);
  }

  bool read_list(Json& out, char end, int depth) {
    ++at_;
    out = Json::array();
    bool comma = false;
    while (!take(end)) {
      if (!out.empty() && !comma) return false;
      Json item;
      if (!read_value(item, depth + 1)) return false;
      out.push_back(std::move(item));
      comma = take(',');
    }
    if (end == ')' && out.size() == 1 && !comma) out = Json(out[0]);  // mere brackets
    return true;
  }

  bool read_dict(Json& out, int depth) {
    ++at_;
    out = Json::object();
    bool comma = true;
    while (!take('}')) {
      Json key;
      Json value;
      if (!comma || !read_value(key, depth + 1) || !key.is_string() || !take(':') || !read_value(value, depth + 1)) return false;
      out[key.get<std::string>()] = std::move(value);
      comma = take(',');
    }
    return true;
  }

  bool read_string(Json& out) {
    const char mark = text_[at_++];
    std::string value;
    while (at_ < text_.size() && text_[at_] != mark) {
      if (text_[at_] == '\n') return false;
      if (text_[at_] != '\\') {
        value += text_[at_++];
      } else if (!read_escape(value)) {
        return false;
      }
    }
    if (at_ >= text_.size()) return false;
    ++at_;
    out = std::move(value);
    return true;
  }

  bool read_escape(std::string& value) {
    if (++at_ >= text_.size()) return false;
    constexpr std::string_view kFrom = "\\'\"abfnrtv";
    constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    const char kind = text_[at_++];
    if (const size_t simple = kFrom.find(kind); simple != std::string_view::npos) {
      value += kTo[simple];
      return true;
    }
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits == 0) {
      value += '\\';
      value += kind;
      return kind < '0' || kind > '7';  // repr() writes no octal ones
    }
    uint32_t code = 0;
    const std::string_view hex = text_.substr(at_, digits);
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (error != std::errc() || end != hex.data() + digits || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    models::append_utf8(value, code);
    at_ += digits;
    return true;
  }

  bool read_number(Json& out) {
    size_t end = at_;
    while (end < text_.size() && std::string_view("0123456789+-.eE").find(text_[end]) != std::string_view::npos) ++end;
    const std::string_view word = text_.substr(at_, end - at_);
    int64_t integer = 0;
    if (const auto r = std::from_chars(word.data(), word.data() + word.size(), integer);
        r.ec == std::errc() && r.ptr == word.data() + word.size()) {
      if (const std::string_view digits = word.substr(word[0] == '-' ? 1 : 0); digits.size() > 1 && digits[0] == '0')
        return false;  // 007
      out = integer;
    } else {
      double number = 0;
      const auto f = std::from_chars(word.data(), word.data() + word.size(), number);
      if (word.empty() || f.ec != std::errc() || f.ptr != word.data() + word.size()) return false;
      out = number;
    }
    at_ = end;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<Json> parse_python_literal(std::string_view text) { return Parser(text).run(); }

namespace {

std::string python_repr(const Json& value) {
  using Type = Json::value_t;
  switch (value.type()) {
    case Type::string: return models::jinja::quote(value.get<std::string>());
    case Type::boolean: return value.get<bool>() ? "True" : "False";
    case Type::number_float: return models::jinja::format_float(value.get<double>());
    case Type::array: {
      std::string out;
      for (const Json& item : value) out += (out.empty() ? "" : ", ") + python_repr(item);
      return "[" + out + "]";
    }
    case Type::object: {
      std::string out;
      for (const auto& [key, item] : value.items())
        out += (out.empty() ? "" : ", ") + models::jinja::quote(key) + ": " + python_repr(item);
      return "{" + out + "}";
    }
    case Type::null: return "None";
    default: return dump_json(value);
  }
}

}  // namespace

std::string python_text(const Json& value) { return value.is_string() ? value.get<std::string>() : python_repr(value); }

}  // namespace salient::eval
