#include "models/text/regex_translate.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <optional>
#include <vector>

#include "models/text/regex_properties.h"

namespace salient::models {
namespace {

// What belongs between the brackets of a class.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside a class Oniguruma's \w also takes Latin-1's superscript digits and fractions.
constexpr std::string_view kWordOutside = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHex = "0-9A-Fa-f";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }
size_t utf8_length_at(std::string_view text, size_t i) {
  size_t end = i + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - i;
}

// A character class: the union of `body` and `parts`, cut by each of `and_also`, complemented if `negated`.
struct CharacterSet {
  bool negated = false;
  std::string body;
  std::vector<CharacterSet> parts;
  std::vector<CharacterSet> and_also;

  void add(CharacterSet part) {
    if (!part.negated && part.and_also.empty()) {
      body += part.body;
      for (CharacterSet& inner : part.parts) parts.push_back(std::move(inner));
    } else {
      parts.push_back(std::move(part));
    }
  }

  // As one atom of a PCRE2 pattern.
  std::string text() const {
    if (parts.empty() && body.empty()) return negated ? "(?s:.)" : "(?!)";
    if (parts.empty() && and_also.empty()) return (negated ? "[^" : "[") + body + "]";
    if (body.empty() && parts.size() == 1 && and_also.empty()) {
      CharacterSet only = parts.front();
      only.negated = only.negated != negated;
      return only.text();
    }
    std::string united = body.empty() ? "" : "[" + body + "]";
    for (const CharacterSet& part : parts) united += (united.empty() ? "" : "|") + part.text();
    std::string positive = "(?:" + united + ")";
    if (!and_also.empty()) {
      std::string conditions;
      for (const CharacterSet& other : and_also) conditions += "(?=" + other.text() + ")";
      positive = "(?:" + conditions + positive + ")";
    }
    return negated ? "(?:(?!" + positive + ")(?s:.))" : positive;
  }
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    groups_.push_back({0, 0});
    while (i_ < in_.size()) step();
    out_.append(groups_.back().pending, ')');
    if (unterminated_) out_ += '[';  // so that PCRE2 reports it
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start;    // where it begins in the output
    size_t pending;  // isolated options "(?i)" inside it, each a group that ends with it
  };

  char peek(size_t ahead = 0) const { return i_ + ahead < in_.size() ? in_[i_ + ahead] : '\0'; }
  bool starts_with(std::string_view text) const { return in_.substr(i_).substr(0, text.size()) == text; }

  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
    quantified_ = false;
  }

  void step() {
    const char c = in_[i_];
    switch (c) {
      case '\\': return escape();
      case '[': return atom(character_class().text());
      case '(': return open_group();
      case ')': return close_group();
      case '*':
      case '+':
      case '?': return quantifier(std::string(1, in_[i_++]));
      case '{':
        if (const auto interval = read_interval()) return quantifier(*interval);
        ++i_;
        return atom("\\{");
      case '|':
      case '^':
      case '$':
        out_ += c;
        ++i_;
        quantified_ = false;
        atom_ = out_.size();
        return;
      default: {
        const size_t length = utf8_length_at(in_, i_);
        atom(in_.substr(i_, length));
        i_ += length;
      }
    }
  }

  // "{n}", "{n,}", "{,m}" or "{n,m}" at the cursor, in PCRE2's spelling; the cursor moves behind it.
  std::optional<std::string> read_interval() {
    size_t j = i_ + 1;
    std::string low, high;
    while (j < in_.size() && is_digit(in_[j])) low += in_[j++];
    const bool comma = j < in_.size() && in_[j] == ',';
    if (comma) {
      ++j;
      while (j < in_.size() && is_digit(in_[j])) high += in_[j++];
    }
    if (j >= in_.size() || in_[j] != '}' || (low.empty() && high.empty())) return std::nullopt;
    i_ = j + 1;
    if (low.empty()) low = "0";
    return comma ? "{" + low + "," + high + "}" : "{" + low + "}";
  }

  void quantifier(std::string text) {
    if (quantified_) wrap_atom();
    const bool interval = text[0] == '{';
    const bool fixed = interval && text.find(',') == std::string::npos;
    out_ += text;
    quantified_ = true;
    if (peek() == '?' && !fixed) out_ += in_[i_++];
    if (peek() == '+' && !interval) out_ += in_[i_++];
  }

  void wrap_atom() {
    out_.insert(std::min(atom_, out_.size()), "(?:");
    out_ += ')';
  }

  void open_group() {
    const size_t start = out_.size();
    quantified_ = false;
    if (starts_with("(?#")) {
      const size_t end = in_.find(')', i_);
      i_ = end == std::string_view::npos ? in_.size() : end + 1;
      return;
    }
    if (starts_with("(?")) {
      size_t j = i_ + 2;
      std::string options;
      while (j < in_.size() && (std::isalpha(static_cast<unsigned char>(in_[j])) != 0 || in_[j] == '-')) {
        options += in_[j] == 'm' ? 's' : in_[j];  // Ruby's name for "dot matches newline"
        ++j;
      }
      if (!options.empty() && j < in_.size() && (in_[j] == ':' || in_[j] == ')')) {
        ignore_case_ = ignore_case_ || options.find('i') != std::string::npos;
        out_ += "(?" + options + ":";
        if (in_[j] == ':') {
          groups_.push_back({start, 0});
        } else {
          ++groups_.back().pending;
        }
        i_ = j + 1;
        return;
      }
    }
    groups_.push_back({start, 0});
    size_t length = 1;
    if (starts_with("(?<=") || starts_with("(?<!")) {
      length = 4;
    } else if (starts_with("(?<")) {
      const size_t end = in_.find('>', i_);
      length = end == std::string_view::npos ? in_.size() - i_ : end + 1 - i_;
    } else if (starts_with("(?")) {
      length = in_.size() > i_ + 2 && in_[i_ + 2] != '(' ? 3 : 2;
    }
    out_ += in_.substr(i_, length);
    i_ += length;
  }

  void close_group() {
    ++i_;
    if (groups_.size() == 1) {
      out_ += ')';
      return;
    }
    out_.append(groups_.back().pending, ')');
    out_ += ')';
    atom_ = groups_.back().start;
    groups_.pop_back();
    quantified_ = false;
  }

  // "\p{...}" or "\P{...}" with the cursor on the p; nothing when no brace follows.
  std::optional<CharacterSet> read_property() {
    if (peek(1) != '{') return std::nullopt;
    const size_t end = in_.find('}', i_);
    if (end == std::string_view::npos) return std::nullopt;
    CharacterSet set;
    set.negated = in_[i_] == 'P';
    std::string_view name = in_.substr(i_ + 2, end - i_ - 2);
    if (name.starts_with('^')) {
      set.negated = !set.negated;
      name.remove_prefix(1);
    }
    i_ = end + 1;
    if (const Property* row = find_property(name)) {
      set.body = row->body;
      set.negated = set.negated != row->negated;
    } else {
      set.body = std::string(set.negated ? "\\P{" : "\\p{") + (is_script(name) ? "sc:" : "") + std::string(name) + "}";
      set.negated = false;
    }
    return set;
  }

  // \xHH, \x{H...}, \uHHHH with the cursor on the letter: PCRE2's "\x{...}".
  std::optional<std::string> read_code_point() {
    const auto hex_run = [&](size_t from, size_t most) {
      size_t j = from;
      while (j < in_.size() && j < from + most && std::isxdigit(static_cast<unsigned char>(in_[j])) != 0) ++j;
      return in_.substr(from, j - from);
    };
    std::string_view digits;
    if (in_[i_] == 'x' && peek(1) == '{') {
      digits = hex_run(i_ + 2, 8);
      if (digits.empty() || peek(2 + digits.size()) != '}') return std::nullopt;
      i_ += 3 + digits.size();
    } else {
      digits = hex_run(i_ + 1, in_[i_] == 'u' ? 4 : 2);
      if (digits.empty()) return std::nullopt;
      i_ += 1 + digits.size();
    }
    return "\\x{" + std::string(digits) + "}";
  }

  void escape() {
    ++i_;
    const char c = peek();
    const auto replace = [&](std::string_view text) {
      ++i_;
      atom(text);
    };
    const std::string word = "[" + std::string(kWordOutside) + "]";
    switch (c) {
      case '\0': out_ += '\\'; return;
      case 'w': return replace(word);
      case 'W': return replace("[^" + std::string(kWordOutside) + "]");
      case 'b': return replace("(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))");
      case 'B': return replace("(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))");
      case 'h': return replace("[" + std::string(kHex) + "]");
      case 'H': return replace("[^" + std::string(kHex) + "]");
      case 'v': return replace("\\x{0B}");
      case 'O': return replace("(?s:.)");
      case 'p':
      case 'P':
        if (const auto set = read_property()) {
          const bool plain = !set->negated && set->body.starts_with('\\') && set->body.find('\\', 1) == std::string::npos;
          const std::string text = plain ? set->body : set->text();
          return atom(ignore_case_ ? "(?-i:" + text + ")" : text);
        }
        return replace(std::string(1, c));
      case 'x':
      case 'u':
        if (const auto code = read_code_point()) return atom(*code);
        return replace(std::string(1, c));
      default: break;
    }
    if (is_alnum(c)) {
      constexpr std::string_view kSame = "AZzGRXNKaefnrtdDsSkgco0123456789";
      if (kSame.find(c) == std::string_view::npos) return replace(std::string(1, c));  // no meaning: the letter itself
      ++i_;
      std::string text = std::string("\\") + c;
      while (is_digit(c) && i_ < in_.size() && is_digit(in_[i_])) text += in_[i_++];
      if ((c == 'k' || c == 'g') && peek() == '<') {
        while (i_ < in_.size() && text.back() != '>') text += in_[i_++];
      }
      if (c == 'o' && peek() == '{') {
        while (i_ < in_.size() && text.back() != '}') text += in_[i_++];
      }
      return atom(text);
    }
    const size_t length = utf8_length_at(in_, i_);
    atom("\\" + std::string(in_.substr(i_, length)));
    i_ += length;
  }

  // One member of a class: a code point, spelled for a PCRE2 class, or a set.
  struct Member {
    std::string code;
    std::optional<CharacterSet> set;
  };

  static Member set_of(std::string_view body, bool negated) {
    CharacterSet set;
    set.body = body;
    set.negated = negated;
    return {"", std::move(set)};
  }

  Member class_escape() {
    ++i_;
    const char c = peek();
    const auto code = [&](std::string text) {
      ++i_;
      return Member{std::move(text), std::nullopt};
    };
    const auto set = [&](std::string_view body, bool negated) {
      ++i_;
      return set_of(body, negated);
    };
    switch (c) {
      case '\0': return {"\\", std::nullopt};
      case 'w': return set(kWord, false);
      case 'W': return set(kWord, true);
      case 'h': return set(kHex, false);
      case 'H': return set(kHex, true);
      case 'd':
      case 'D':
      case 's':
      case 'S': return set(std::string("\\") + c, false);
      case 'b': return code("\\x{08}");
      case 'v': return code("\\x{0B}");
      case 'a':
      case 'e':
      case 'f':
      case 'n':
      case 'r':
      case 't': return code(std::string("\\") + c);
      case 'p':
      case 'P':
        if (auto property = read_property()) return {"", std::move(property)};
        return code(std::string(1, c));
      case 'x':
      case 'u':
        if (auto text = read_code_point()) return {*text, std::nullopt};
        return code(std::string(1, c));
      default: break;
    }
    if (c >= '0' && c <= '7') {
      std::string digits;
      while (digits.size() < 3 && peek() >= '0' && peek() <= '7') digits += in_[i_++];
      return {"\\o{" + digits + "}", std::nullopt};
    }
    return literal_member();
  }

  Member literal_member() {
    const size_t length = utf8_length_at(in_, i_);
    const std::string text(in_.substr(i_, length));
    i_ += length;
    return {length == 1 && !is_alnum(text[0]) ? "\\" + text : text, std::nullopt};
  }

  std::optional<CharacterSet> read_posix() {
    if (!starts_with("[:")) return std::nullopt;
    const size_t end = in_.find(":]", i_ + 2);
    if (end == std::string_view::npos) return std::nullopt;
    std::string_view name = in_.substr(i_ + 2, end - i_ - 2);
    CharacterSet set;
    if (name.starts_with('^')) {
      set.negated = true;
      name.remove_prefix(1);
    }
    if (name.empty() ||
        !std::all_of(name.begin(), name.end(), [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; })) {
      return std::nullopt;
    }
    i_ = end + 2;
    if (name == "punct") {
      set.body = R"(\p{P}\p{S})";
    } else if (const Property* row = find_property(name)) {
      set.body = row->body;
      set.negated = set.negated != row->negated;
    } else {
      set.body = "[:" + std::string(name) + ":]";
    }
    return set;
  }

  CharacterSet character_class(int depth = 0) {
    constexpr int kMostLevels = 64;
    if (depth > kMostLevels) {
      unterminated_ = true;
      i_ = in_.size();
      return {};
    }
    ++i_;  // [
    const bool negated = peek() == '^';
    if (negated) ++i_;
    CharacterSet current;
    std::vector<CharacterSet> operands;
    bool first = true;
    while (i_ < in_.size() && (in_[i_] != ']' || (first && in_.find(']', i_ + 1) != std::string_view::npos))) {
      first = false;
      if (starts_with("&&")) {
        i_ += 2;
        operands.push_back(std::move(current));
        current = {};
        continue;
      }
      if (in_[i_] == '[') {
        auto posix = read_posix();
        current.add(posix ? std::move(*posix) : character_class(depth + 1));
        continue;
      }
      Member member = in_[i_] == '\\' ? class_escape() : literal_member();
      if (member.set) {
        current.add(std::move(*member.set));
        continue;
      }
      current.body += member.code;
      if (peek() == '-' && i_ + 1 < in_.size() && in_[i_ + 1] != ']' && in_[i_ + 1] != '[') {
        ++i_;
        Member last = in_[i_] == '\\' ? class_escape() : literal_member();
        if (last.set) {  // "a-\d": three members
          current.body += "\\-";
          current.add(std::move(*last.set));
        } else {
          current.body += "-" + last.code;
        }
      }
    }
    if (i_ >= in_.size()) {
      unterminated_ = true;
      return current;
    }
    ++i_;  // ]
    if (operands.empty()) {
      current.negated = negated;
      return current;
    }
    operands.push_back(std::move(current));
    CharacterSet result = std::move(operands.back());
    operands.pop_back();
    result.negated = negated;
    result.and_also = std::move(operands);
    return result;
  }

  std::string_view in_;
  std::string out_;
  size_t i_ = 0;
  size_t atom_ = 0;          // where the last atom begins in the output
  bool quantified_ = false;  // a quantifier follows it already
  bool ignore_case_ = false;
  bool unterminated_ = false;  // or nested too deep
  std::vector<Group> groups_;
};

}  // namespace

std::string translate_regex(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace salient::models
