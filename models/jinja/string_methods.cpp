#include "models/jinja/string_methods.h"

#include <algorithm>
#include <string>
#include <vector>

#include "models/jinja/format.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

constexpr int64_t kMostWidth = int64_t{1} << 40;  // beyond what any limit allows

const std::string& text_of(const Value& self) { return self.string()->text; }

// A result of the same class as `self`: Markup stays Markup.
Value like(const Value& self, std::string_view text) { return Value(std::string(text), self.string()->markup); }

Value list_like(Runtime& runtime, const Value& self, const std::vector<std::string_view>& parts) {
  runtime.step(parts.size());
  std::vector<Value> items;
  for (const std::string_view part : parts) {
    runtime.produce(part.size());
    items.push_back(like(self, part));
  }
  return make_list(std::move(items));
}

const std::string& require_string(const Value& value, std::string_view what) {
  require_defined(value);
  const String* string = value.string();
  if (string == nullptr) raise("{} must be a string, not '{}'", what, type_name(value));
  return string->text;
}

template <bool left, bool right>
Value strip_method(Runtime&, const Value& self, const Bound& arguments) {
  const Value* chars = arguments.unless_none(0);
  return like(self,
              strip(text_of(self), chars == nullptr ? nullptr : &require_string(*chars, "the characters to strip"), left, right));
}

// str.split() and str.rsplit() at white space.
std::vector<std::string_view> split_at_space(Runtime& runtime, std::string_view text, int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  text = from_right ? strip_right(text) : strip_left(text);
  while (!text.empty()) {
    runtime.step();
    if (limit == 0) {
      parts.push_back(from_right ? strip_right(text) : text);
      break;
    }
    --limit;
    size_t cut = 0;  // where the word ends, from its side
    if (from_right) {
      cut = text.size();
      while (cut > 0) {
        size_t start = cut - 1;
        while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0u) == 0x80u) --start;
        size_t position = start;
        if (is_space(next_code_point(text, position))) break;
        cut = start;
      }
      parts.push_back(text.substr(cut));
      text = strip_right(text.substr(0, cut));
    } else {
      for (size_t position = 0; position < text.size(); cut = position) {
        if (is_space(next_code_point(text, position))) break;
      }
      parts.push_back(text.substr(0, cut));
      text = strip_left(text.substr(cut));
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool from_right>
Value split_method(Runtime& runtime, const Value& self, const Bound& arguments) {
  std::string_view text = text_of(self);
  int64_t limit = std::max<int64_t>(arguments.integer(1, "maxsplit", -1), -1);
  const Value* given = arguments.unless_none(0);
  if (given == nullptr) return list_like(runtime, self, split_at_space(runtime, text, limit, from_right));
  const std::string& separator = require_string(*given, "the separator");
  if (separator.empty()) raise("empty separator");
  std::vector<std::string_view> parts;
  for (; limit != 0; --limit) {
    const size_t found = from_right ? find_last_text(text, separator) : find_text(text, separator);
    if (found == std::string_view::npos) break;
    runtime.step();
    parts.push_back(from_right ? text.substr(found + separator.size()) : text.substr(0, found));
    text = from_right ? text.substr(0, found) : text.substr(found + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return list_like(runtime, self, parts);
}

template <bool from_right>
Value partition_method(Runtime&, const Value& self, const Bound& arguments) {
  const std::string_view text = text_of(self);
  const std::string& separator = require_string(*arguments[0], "the separator");
  if (separator.empty()) raise("empty separator");
  const size_t found = from_right ? find_last_text(text, separator) : find_text(text, separator);
  std::vector<Value> parts;
  if (found == std::string_view::npos) {
    parts = {like(self, from_right ? "" : text), like(self, ""), like(self, from_right ? text : "")};
  } else {
    parts = {like(self, text.substr(0, found)), like(self, separator), like(self, text.substr(found + separator.size()))};
  }
  return make_list(std::move(parts), List::Kind::kTuple);
}

// The part of the text between code point positions given as Python's optional start and end; nullopt for start behind the end.
std::optional<std::pair<size_t, size_t>> byte_window(const Value& self, const Bound& arguments) {
  const std::string& text = text_of(self);
  if (arguments.unless_none(1) == nullptr && arguments.unless_none(2) == nullptr) return std::pair{size_t{0}, text.size()};
  const auto size = static_cast<int64_t>(count_code_points(text));
  const auto bound = [&](size_t slot, int64_t fallback) {
    const Value* given = arguments.unless_none(slot);
    const int64_t position = given == nullptr ? fallback : require_integer(*given, "a position");
    return position < 0 ? std::max<int64_t>(position + size, 0) : position;
  };
  const int64_t start = bound(1, 0);
  const int64_t end = std::min(bound(2, size), size);
  if (start > end) return std::nullopt;
  return std::pair{offset_of(text, static_cast<size_t>(start)), offset_of(text, static_cast<size_t>(end))};
}

template <bool at_end>
Value affix_method(Runtime&, const Value& self, const Bound& arguments) {
  const auto window = byte_window(self, arguments);
  const std::string_view text =
      window ? std::string_view(text_of(self)).substr(window->first, window->second - window->first) : std::string_view();
  const auto matches = [&](const Value& affix) {
    const std::string& part = require_string(affix, at_end ? "a suffix" : "a prefix");
    return window.has_value() && (at_end ? text.ends_with(part) : text.starts_with(part));
  };
  const List* several = arguments[0]->list();
  if (several == nullptr || !several->is_tuple()) return matches(*arguments[0]);
  return std::any_of(several->items.begin(), several->items.end(), matches);
}

template <bool from_right, bool must_find>
Value find_method(Runtime&, const Value& self, const Bound& arguments) {
  const std::string& part = require_string(*arguments[0], "the text to find");
  const auto window = byte_window(self, arguments);
  size_t found = std::string_view::npos;
  if (window) {
    const std::string_view text = std::string_view(text_of(self)).substr(0, window->second);
    found = from_right ? find_last_text(text, part) : find_text(text, part, window->first);
    if (found != std::string_view::npos && found < window->first) found = std::string_view::npos;
  }
  if (found != std::string_view::npos)
    return static_cast<int64_t>(count_code_points(std::string_view(text_of(self)).substr(0, found)));
  if (must_find) raise("substring not found");
  return int64_t{-1};
}

Value count_method(Runtime&, const Value& self, const Bound& arguments) {
  const std::string& part = require_string(*arguments[0], "the text to count");
  const auto window = byte_window(self, arguments);
  if (!window) return int64_t{0};
  const std::string_view text = std::string_view(text_of(self)).substr(window->first, window->second - window->first);
  if (part.empty()) return static_cast<int64_t>(count_code_points(text)) + 1;
  int64_t count = 0;
  for (size_t found = find_text(text, part); found != std::string_view::npos; found = find_text(text, part, found + part.size())) {
    ++count;
  }
  return count;
}

Value replace_method(Runtime& runtime, const Value& self, const Bound& arguments) {
  const std::string& from = require_string(*arguments[0], "the text to replace");
  std::string to = require_string(*arguments[1], "the replacement");
  if (self.string()->markup && !arguments[1]->string()->markup) to = escape_html(to);
  return like(self, replace(runtime, text_of(self), from, to, arguments.integer(2, "count", -1)));
}

Value join_method(Runtime& runtime, const Value& self, const Bound& arguments) {
  std::string out;
  bool first = true;
  for (const Value& item : drain(runtime, *arguments[0])) {
    const std::string& part = require_string(item, "an item to join");
    runtime.produce(part.size() + text_of(self).size());
    if (!first) out += text_of(self);
    first = false;
    out += self.string()->markup && !item.string()->markup ? escape_html(part) : part;
  }
  return like(self, out);
}

// All code points pass `test`, and there is at least one.
template <bool (*test)(char32_t)>
Value all_method(Runtime&, const Value& self, const Bound&) {
  const std::string& text = text_of(self);
  for (size_t position = 0; position < text.size();) {
    if (!test(next_code_point(text, position))) return false;
  }
  return !text.empty();
}

bool is_alphanumeric(char32_t c) { return is_word(c) && c != '_'; }

template <bool (*wanted)(char32_t)>
Value case_test_method(Runtime&, const Value& self, const Bound&) {
  const std::string& text = text_of(self);
  bool cased = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (!is_cased(c)) continue;
    if (!wanted(c)) return false;
    cased = true;
  }
  return cased;
}

template <std::string (*change)(std::string_view)>
Value change_method(Runtime&, const Value& self, const Bound&) {
  return like(self, change(text_of(self)));
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const char32_t c = next_code_point(text, position);
    const std::string_view one = text.substr(start, position - start);
    out += is_upper(c) ? to_lower(one) : is_lower(c) ? to_upper(one) : std::string(one);
  }
  return out;
}

std::string fill_text(Runtime& runtime, int64_t count, std::string_view fill) {
  std::string text;
  if (count <= 0) return text;
  runtime.produce(static_cast<size_t>(count) * fill.size());
  for (int64_t i = 0; i < count; ++i) text += fill;
  return text;
}

std::string fill_character(const Bound& arguments) {
  if (arguments[1] == nullptr) return " ";
  const std::string& fill = require_string(*arguments[1], "the fill character");
  if (count_code_points(fill) != 1) raise("the fill character must be exactly one character long");
  return fill;
}

int64_t missing_width(const Value& self, const Bound& arguments) {
  const int64_t width = std::clamp(require_integer(*arguments[0], "the width"), int64_t{0}, kMostWidth);
  return width - static_cast<int64_t>(count_code_points(text_of(self)));
}

template <bool left>
Value justify_method(Runtime& runtime, const Value& self, const Bound& arguments) {
  const std::string fill = fill_text(runtime, missing_width(self, arguments), fill_character(arguments));
  return like(self, left ? text_of(self) + fill : fill + text_of(self));
}

Value zfill_method(Runtime& runtime, const Value& self, const Bound& arguments) {
  const std::string& text = text_of(self);
  const std::string fill = fill_text(runtime, missing_width(self, arguments), "0");
  const size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  return like(self, text.substr(0, sign) + fill + text.substr(sign));
}

Value remove_prefix(Runtime&, const Value& self, const Bound& arguments) {
  const std::string& prefix = require_string(*arguments[0], "the prefix");
  return like(self, text_of(self).starts_with(prefix) ? text_of(self).substr(prefix.size()) : text_of(self));
}

Value remove_suffix(Runtime&, const Value& self, const Bound& arguments) {
  const std::string& suffix = require_string(*arguments[0], "the suffix");
  return like(self,
              text_of(self).ends_with(suffix) ? text_of(self).substr(0, text_of(self).size() - suffix.size()) : text_of(self));
}

constexpr Method kStringMethods[] = {
    {"strip", "chars/=", strip_method<true, true>},
    {"lstrip", "chars/=", strip_method<true, false>},
    {"rstrip", "chars/=", strip_method<false, true>},
    {"split", "sep= maxsplit=", split_method<false>},
    {"rsplit", "sep= maxsplit=", split_method<true>},
    {"splitlines", "keepends=",
     [](Runtime& runtime, const Value& self, const Bound& arguments) {
       const std::string& text = text_of(self);
       // Of bytes that may end a line; there are no more parts.
       const auto ends = std::count_if(text.begin(), text.end(), [](char c) {
         return static_cast<unsigned char>(c) < 0x20 || c == '\x85' || c == '\xA8' || c == '\xA9';
       });
       runtime.step(static_cast<size_t>(ends));
       return list_like(runtime, self, split_lines(text, arguments.flag(0, false)));
     }},
    {"partition", "sep/", partition_method<false>},
    {"rpartition", "sep/", partition_method<true>},
    {"startswith", "prefix/ start/= end/=", affix_method<false>},
    {"endswith", "suffix/ start/= end/=", affix_method<true>},
    {"find", "sub/ start/= end/=", find_method<false, false>},
    {"rfind", "sub/ start/= end/=", find_method<true, false>},
    {"index", "sub/ start/= end/=", find_method<false, true>},
    {"rindex", "sub/ start/= end/=", find_method<true, true>},
    {"count", "sub/ start/= end/=", count_method},
    {"replace", "old/ new/ count/=", replace_method},
    {"join", "iterable/", join_method},
    {"upper", "", change_method<to_upper>},
    {"lower", "", change_method<to_lower>},
    {"casefold", "", change_method<to_lower>},
    {"title", "", change_method<title_case>},
    {"capitalize", "", change_method<capitalize>},
    {"swapcase", "", change_method<swap_case>},
    {"removeprefix", "prefix/", remove_prefix},
    {"removesuffix", "suffix/", remove_suffix},
    {"ljust", "width/ fillchar/=", justify_method<true>},
    {"rjust", "width/ fillchar/=", justify_method<false>},
    {"center", "width/ fillchar/=",
     [](Runtime& runtime, const Value& self, const Bound& arguments) {
       return like(self, center(runtime, text_of(self), require_integer(*arguments[0], "the width"), fill_character(arguments)));
     }},
    {"zfill", "width/", zfill_method},
    {"isdigit", "", all_method<is_decimal>},
    {"isdecimal", "", all_method<is_decimal>},
    {"isnumeric", "", all_method<is_decimal>},
    {"isalpha", "", all_method<is_alphabetic>},
    {"isalnum", "", all_method<is_alphanumeric>},
    {"isspace", "", all_method<is_space>},
    {"isupper", "", case_test_method<is_upper>},
    {"islower", "", case_test_method<is_lower>},
    {"format", "", nullptr,
     [](Runtime& runtime, const Value& self, const Arguments& arguments) {
       if (self.string()->markup) raise_unsupported("format() of an escaped string is not supported");
       return Value(format_braces(runtime, text_of(self), arguments));
     }},
};

}  // namespace

std::span<const Method> string_methods() { return kStringMethods; }

std::string center(Runtime& runtime, std::string_view text, int64_t width, std::string_view fill) {
  width = std::clamp(width, int64_t{0}, kMostWidth);
  const int64_t missing = width - static_cast<int64_t>(count_code_points(text));
  if (missing <= 0) return std::string(text);
  const int64_t left = missing / 2 + (missing & width & 1);  // where CPython puts the odd blank
  return fill_text(runtime, left, fill) + std::string(text) + fill_text(runtime, missing - left, fill);
}

std::string replace(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  // An upper bound of the growth, before any of it is made.
  if (to.size() > from.size()) {
    const size_t places = text.size() / std::max<size_t>(from.size(), 1) + 1;
    const size_t times = count < 0 ? places : std::min(places, static_cast<size_t>(count));
    if (times * to.size() > runtime.options.limits.bytes) {
      size_t found = 0;
      for (size_t at = from.empty() ? std::string_view::npos : find_text(text, from); at != std::string_view::npos;
           at = find_text(text, from, at + from.size()))
        ++found;
      runtime.produce(from.empty() ? times * to.size() : std::min(found, times) * to.size());
    }
  }
  return replace_all(text, from, to, count);
}

}  // namespace salient::models::jinja
