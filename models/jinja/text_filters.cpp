// Filters that make text.
#include <string>
#include <vector>

#include "models/jinja/filters.h"
#include "models/jinja/format.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/string_methods.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

// markupsafe.soft_str(): strings as they are, other values as str() prints them.
Value soft_text(Runtime& runtime, const Value& value) { return value.is_string() ? value : Value(to_text(runtime, value)); }

template <std::string (*change)(std::string_view)>
Value filter_change(Runtime& runtime, const Value& subject, const Bound&) {
  const Value text = soft_text(runtime, subject);
  return Value(change(text.string()->text), text.string()->markup);
}

// Jinja2's own title case: a word starts behind blanks and - ( { [ <.
std::string title_words(std::string_view text) {
  std::string out;
  size_t start = 0;
  const auto flush = [&](size_t end) {
    const std::string_view word = text.substr(start, end - start);
    if (word.empty()) return;
    const size_t first = offset_of(word, 1);
    out += to_upper(word.substr(0, first)) + to_lower(word.substr(first));
  };
  for (size_t position = 0; position < text.size();) {
    const size_t here = position;
    const char32_t c = next_code_point(text, position);
    if (!is_space(c) && c != '-' && c != '(' && c != '{' && c != '[' && c != '<') continue;
    flush(here);
    out += text.substr(here, position - here);
    start = position;
  }
  flush(text.size());
  return out;
}

Value filter_trim(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const Value text = soft_text(runtime, subject);
  const Value* chars = arguments.unless_none(0);
  if (chars != nullptr && !chars->is_string()) raise("strip arg must be None or str");
  return Value(std::string(strip(text.string()->text, chars == nullptr ? nullptr : &chars->string()->text, true, true)),
               text.string()->markup);
}

Value filter_replace(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const Value* count = arguments.unless_none(2);
  return Value(replace(runtime, to_text(runtime, subject), to_text(runtime, *arguments[0]), to_text(runtime, *arguments[1]),
                       count == nullptr ? -1 : require_integer(*count, "count")));
}

Value filter_indent(Runtime& runtime, const Value& subject, const Bound& arguments) {
  std::string pad = "    ";
  if (arguments[0] != nullptr) {
    if (const String* text = arguments[0]->string()) {
      pad = text->text;
    } else {
      const int64_t width = std::max<int64_t>(require_integer(*arguments[0], "the width"), 0);
      runtime.produce(static_cast<size_t>(width));
      pad = std::string(static_cast<size_t>(width), ' ');
    }
  }
  require_defined(subject);
  if (!subject.is_string()) raise("'{}' cannot be indented", type_name(subject));
  const std::string text = subject.string()->text + "\n";
  const std::vector<std::string_view> lines = split_lines(text, false);
  runtime.produce(text.size() + lines.size() * (pad.size() + 1));
  const bool blank = arguments.flag(2, false);
  std::string out = arguments.flag(1, false) ? pad : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (blank || !lines[i].empty())) out += pad;
    out += lines[i];
  }
  return Value(std::move(out), subject.string()->markup);
}

Value filter_center(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const Value text = soft_text(runtime, subject);
  return Value(center(runtime, text.string()->text, arguments.integer(0, "the width", 80), " "), text.string()->markup);
}

Value filter_wordcount(Runtime& runtime, const Value& subject, const Bound&) {
  const std::string text = to_text(runtime, subject);
  int64_t count = 0;
  bool inside = false;
  for (size_t position = 0; position < text.size();) {
    const bool word = is_word(next_code_point(text, position));
    if (word && !inside) ++count;
    inside = word;
  }
  return count;
}

Value filter_truncate(Runtime& runtime, const Value& subject, const Bound& arguments) {
  require_defined_if_strict(runtime, subject);
  constexpr int64_t kMost = int64_t{1} << 40;
  const int64_t length = std::clamp(arguments.integer(0, "the length", 255), int64_t{-1}, kMost);
  const Value* end_argument = arguments[2];
  if (end_argument != nullptr && !end_argument->is_string()) raise("the end must be a string");
  const std::string end = end_argument == nullptr ? "..." : end_argument->string()->text;
  const Value* leeway_argument = arguments.unless_none(3);
  const int64_t leeway = leeway_argument == nullptr ? 5 : std::min(require_integer(*leeway_argument, "the leeway"), kMost);
  const int64_t kept = length - static_cast<int64_t>(count_code_points(end));
  if (kept < 0 || leeway < 0) raise("expected a length of at least that of the end mark, and a leeway of at least 0");
  const auto size = length_of(subject);
  if (!size) raise("object of type '{}' has no len()", type_name(subject));
  if (*size <= length + leeway) return subject;
  if (!subject.is_string()) raise("'{}' cannot be truncated", type_name(subject));
  std::string text = subject.string()->text.substr(0, offset_of(subject.string()->text, static_cast<size_t>(kept)));
  if (!arguments.flag(1, false)) text = text.substr(0, std::min(text.rfind(' '), text.size()));
  return Value(text + end);
}

Value filter_escape(Runtime& runtime, const Value& subject, const Bound&) {
  if (subject.is_string() && subject.string()->markup) return subject;
  return Value(escape_html(to_text(runtime, subject)), true);
}

Value filter_format(Runtime& runtime, const Value& subject, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty())
    raise("can't handle positional and keyword arguments at the same time");
  const Value text = soft_text(runtime, subject);
  if (arguments.keyword.empty())
    return format_percent(runtime, *text.string(), make_list(arguments.positional, List::Kind::kTuple));
  Dict named;
  for (const auto& [name, value] : arguments.keyword) named.append(name, value);
  return format_percent(runtime, *text.string(), make_dict(std::move(named)));
}

constexpr Filter kTextFilters[] = {
    {"trim", "chars=", filter_trim},
    {"upper", "", filter_change<to_upper>},
    {"lower", "", filter_change<to_lower>},
    {"capitalize", "", filter_change<capitalize>},
    {"title", "", filter_change<title_words>},
    {"string", "", [](Runtime& runtime, const Value& subject, const Bound&) { return soft_text(runtime, subject); }},
    {"replace", "old new count=", filter_replace},
    {"indent", "width= first= blank=", filter_indent},
    {"center", "width=", filter_center},
    {"wordcount", "", filter_wordcount},
    {"truncate", "length= killwords= end= leeway=", filter_truncate},
    {"safe", "", [](Runtime& runtime, const Value& subject, const Bound&) { return Value(to_text(runtime, subject), true); }},
    {"escape", "", filter_escape},
    {"e", "", filter_escape},
    {"forceescape", "",
     [](Runtime& runtime, const Value& subject, const Bound&) { return Value(escape_html(to_text(runtime, subject)), true); }},
    {"format", "", nullptr, filter_format},
};

}  // namespace

std::span<const Filter> text_filters() { return kTextFilters; }

}  // namespace salient::models::jinja
