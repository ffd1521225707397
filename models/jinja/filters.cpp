#include "models/jinja/filters.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "models/jinja/iteration.h"
#include "models/jinja/json_text.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

const Filter* find_filter(std::string_view name) {
  for (const auto table : {text_filters(), sequence_filters(), number_filters()}) {
    for (const Filter& filter : table) {
      if (filter.name == name) return &filter;
    }
  }
  return nullptr;
}

// Digits of int(text, base): blanks around, a sign, the base's prefix, single underscores between digits.
std::optional<Value> parse_integer(std::string_view text, int64_t base) {
  text = strip(text, nullptr, true, true);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const char prefix = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t prefix_base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
  if (prefix_base != 0 && (base == prefix_base || base == 0)) {
    base = prefix_base;
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
  } else if (base == 0) {
    base = 10;
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos) return std::nullopt;
  }
  if (text.empty() || text[0] == '-') return std::nullopt;
  std::string digits(negative ? 1 : 0, '-');
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i - 1] == '_') {
      return std::nullopt;
    }
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (end != digits.data() + digits.size() || error == std::errc::invalid_argument) return std::nullopt;
  if (error != std::errc()) raise_unsupported("integers over 64 bits are not supported");
  return Value(value);
}

std::optional<double> parse_float(std::string_view text) {
  text = strip(text, nullptr, true, true);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto is_digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (c == '_') {
      if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
    } else {
      digits += c;
    }
  }
  const std::string lower = to_lower(digits);
  const std::string_view unsigned_text =
      std::string_view(lower).substr(!lower.empty() && (lower[0] == '-' || lower[0] == '+') ? 1 : 0);
  if (unsigned_text != "inf" && unsigned_text != "infinity" && unsigned_text != "nan") {
    if (unsigned_text.empty() || unsigned_text.find_first_not_of("0123456789.e+-") != std::string_view::npos) return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(lower.c_str(), &end);
  return end == lower.c_str() + lower.size() ? std::optional<double>(value) : std::nullopt;
}

std::optional<double> as_float(const Value& value) {
  require_defined(value);
  if (value.is_number()) return value.number();
  return value.is_string() ? parse_float(value.string()->text) : std::nullopt;
}

Value truncate_to_integer(double value) {
  if (std::fabs(value) >= 9223372036854775808.0) raise_unsupported("integers over 64 bits are not supported");
  return static_cast<int64_t>(value);
}

Value filter_int(Runtime&, const Value& subject, const Bound& arguments) {
  require_defined(subject);
  if (subject.is_integer()) return subject.integer();
  if (subject.is_string()) {
    const int64_t base = arguments.integer(1, "the base", 10);
    if (base == 0 || (base >= 2 && base <= 36)) {
      if (const auto parsed = parse_integer(subject.string()->text, base)) return *parsed;
    }
  }
  const std::optional<double> number = as_float(subject);
  if (number && std::isinf(*number) && !subject.is_string()) raise("cannot convert float infinity to integer");
  if (number && std::isfinite(*number)) return truncate_to_integer(*number);
  return arguments[0] == nullptr ? Value(int64_t{0}) : *arguments[0];
}

Value filter_float(Runtime&, const Value& subject, const Bound& arguments) {
  if (const std::optional<double> number = as_float(subject)) return *number;
  return arguments[0] == nullptr ? Value(0.0) : *arguments[0];
}

Value filter_abs(Runtime& runtime, const Value& subject, const Bound&) {
  require_defined(subject);
  if (const double* number = subject.get<double>()) return std::fabs(*number);
  if (!subject.is_integer()) raise("bad operand type for abs(): '{}'", type_name(subject));
  return subject.integer() < 0 ? apply(runtime, UnaryOperator::kNegate, subject) : Value(subject.integer());
}

// Python's round(): to the nearest decimal, halves (of the exact binary value) to even.
double round_float(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision < -300) return std::copysign(0.0, value);
  if (precision >= 0) {
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), value);
    return std::strtod(buffer, nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / unit) * unit;
}

int64_t round_integer(int64_t value, int64_t precision) {
  if (precision >= 0) return value;
  if (precision < -18) return 0;
  __int128 unit = 1;
  for (int64_t i = 0; i < -precision; ++i) unit *= 10;
  const __int128 floor = value / unit * unit - (value % unit < 0 ? unit : 0);
  const __int128 rest = value - floor;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (floor / unit) % 2 != 0);
  const __int128 rounded = up ? floor + unit : floor;
  if (rounded != static_cast<int64_t>(rounded)) raise_unsupported("integers beyond 64 bits are not supported");
  return static_cast<int64_t>(rounded);
}

Value filter_round(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const String* method = arguments[1] == nullptr ? nullptr : arguments[1]->string();
  const std::string_view kind = arguments[1] == nullptr ? "common" : method == nullptr ? "" : std::string_view(method->text);
  if (kind != "common" && kind != "ceil" && kind != "floor") raise("method must be common, ceil or floor");
  require_defined(subject);
  if (!subject.is_number()) raise("'{}' cannot be rounded", type_name(subject));
  const int64_t precision = arguments.integer(0, "the precision", 0);
  if (kind == "common") {
    if (subject.is_integer()) return round_integer(subject.integer(), precision);
    return round_float(subject.number(), precision);
  }
  const Value unit = apply(runtime, BinaryOperator::kPower, Value(int64_t{10}), Value(precision));
  const double scaled = apply(runtime, BinaryOperator::kMultiply, subject, unit).number();
  if (!std::isfinite(scaled)) raise("cannot round {}", format_float(scaled));
  const Value whole = truncate_to_integer(kind == "ceil" ? std::ceil(scaled) : std::floor(scaled));
  return apply(runtime, BinaryOperator::kDivide, whole, unit);
}

Value filter_default(Runtime& runtime, const Value& subject, const Bound& arguments) {
  if (!subject.is_undefined() && !(arguments.flag(1, false) && !is_true(runtime, subject))) return subject;
  return arguments[0] == nullptr ? Value("") : *arguments[0];
}

Value filter_attr(Runtime& runtime, const Value& subject, const Bound& arguments) {
  require_defined(subject);
  if (!arguments[0]->is_string()) raise("the attribute name must be a string, not '{}'", type_name(*arguments[0]));
  if (auto found = find_attribute(runtime, subject, arguments[0]->string()->text)) return *found;
  return Value::undefined(fmt::format("'{} object' has no attribute '{}'", type_name(subject), arguments[0]->string()->text));
}

Value filter_tojson(Runtime& runtime, const Value& subject, const Bound& arguments) {
  JsonStyle style;
  style.ensure_ascii = arguments.flag(0, false);
  if (const Value* indent = arguments.unless_none(1)) {
    if (const String* text = indent->string()) {
      style.indent = text->text;
    } else {
      const int64_t width = std::max<int64_t>(require_integer(*indent, "indent"), 0);
      if (width > 1000) raise("an indent of {} is too wide", width);
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator.assign(1, ',');
  }
  if (const Value* separators = arguments.unless_none(2)) {
    const List* pair = separators->list();
    if (pair == nullptr || pair->items.size() != 2 || !pair->items[0].is_string() || !pair->items[1].is_string())
      raise("separators must be two strings");
    style.item_separator = pair->items[0].string()->text;
    style.key_separator = pair->items[1].string()->text;
  }
  style.sort_keys = arguments.flag(3, false);
  return Value(to_json(runtime, subject, style));
}

constexpr Filter kNumberFilters[] = {
    {"int", "default= base=", filter_int},
    {"float", "default=", filter_float},
    {"abs", "", filter_abs},
    {"round", "precision= method=", filter_round},
    {"default", "default_value= boolean=", filter_default},
    {"d", "default_value= boolean=", filter_default},
    {"attr", "name", filter_attr},
    {"tojson", "ensure_ascii= indent= separators= sort_keys=", filter_tojson},
};

}  // namespace

std::span<const Filter> number_filters() { return kNumberFilters; }

bool is_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Runtime& runtime, std::string_view name, const Value& subject, const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr) raise_unsupported("the filter '{}' is unknown", name);
  const DepthGuard guard(runtime);
  if (const String* text = subject.string()) runtime.read(text->text.size());
  if (filter->raw != nullptr) return runtime.produced(filter->raw(runtime, subject, arguments), subject);
  return runtime.produced(filter->call(runtime, subject, Bound(arguments, filter->name, filter->parameters)), subject);
}

}  // namespace salient::models::jinja
