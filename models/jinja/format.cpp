#include "models/jinja/format.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

constexpr int64_t kMaxPrecision = 200;

// One conversion, common to both languages.
struct Specification {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '=' or none
  char sign = 0;   // '+', ' ' or none
  bool alternate = false, zero = false, comma = false, underscore = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = 0;
};

int64_t read_number(std::string_view text, size_t& position) {
  int64_t number = 0;
  while (position < text.size() && text[position] >= '0' && text[position] <= '9') {
    number = std::min<int64_t>(number * 10 + (text[position++] - '0'), INT32_MAX);
  }
  return number;
}

int checked_precision(int64_t precision) {
  if (precision > kMaxPrecision) raise_unsupported("a format precision over {} is not supported", kMaxPrecision);
  return static_cast<int>(precision);
}

std::string pad(Runtime& runtime, std::string_view sign, std::string body, const Specification& spec, char default_align) {
  const auto size = static_cast<int64_t>(count_code_points(sign) + count_code_points(body));
  const int64_t missing = spec.width - size;
  if (missing <= 0) return std::string(sign) + body;
  runtime.produce(static_cast<size_t>(missing) * spec.fill.size());
  const char align = spec.align != 0 ? spec.align : spec.zero ? '=' : default_align;
  const std::string_view fill = spec.zero && spec.align == 0 ? "0" : std::string_view(spec.fill);
  const auto blanks = [&](int64_t count) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += fill;
    return text;
  };
  switch (align) {
    case '<': return std::string(sign) + body + blanks(missing);
    case '^': return blanks(missing / 2) + std::string(sign) + body + blanks(missing - missing / 2);
    case '=': return std::string(sign) + blanks(missing) + body;
    default: return blanks(missing) + std::string(sign) + body;
  }
}

std::string sign_of(bool negative, const Specification& spec) {
  return negative ? "-" : spec.sign != 0 ? std::string(1, spec.sign) : "";
}

// Separators between groups of three digits, up to the first character that is not a digit.
std::string group_digits(const std::string& text, const Specification& spec) {
  if (!spec.comma && !spec.underscore) return text;
  size_t whole = 0;
  while (whole < text.size() && text[whole] >= '0' && text[whole] <= '9') ++whole;
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += spec.comma ? ',' : '_';
    out += text[i];
  }
  return out + text.substr(whole);
}

std::string digits_in_base(uint64_t value, unsigned base, bool upper) {
  const std::string_view alphabet = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), alphabet[value % base]);
    value /= base;
  } while (value != 0);
  return digits;
}

std::string format_integer(Runtime& runtime, int64_t value, const Specification& spec) {
  const uint64_t magnitude = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  std::string prefix, digits;
  switch (spec.type) {
    case 'x':
    case 'X':
      digits = digits_in_base(magnitude, 16, spec.type == 'X');
      prefix = spec.type == 'x' ? "0x" : "0X";
      break;
    case 'o': digits = digits_in_base(magnitude, 8, false), prefix = "0o"; break;
    case 'b': digits = digits_in_base(magnitude, 2, false), prefix = "0b"; break;
    default: digits = group_digits(std::to_string(magnitude), spec); break;
  }
  return pad(runtime, sign_of(value < 0, spec) + (spec.alternate ? prefix : ""), std::move(digits), spec, '>');
}

std::string format_real(Runtime& runtime, double value, const Specification& spec) {
  const double magnitude = std::fabs(value);
  std::string body;
  if (!std::isfinite(value)) {
    body = std::isnan(value) ? "nan" : "inf";
    if (spec.type == 'E' || spec.type == 'F' || spec.type == 'G') body = to_upper(body);
  } else if (spec.type == 0 && !spec.precision) {
    body = format_float(magnitude);
  } else {
    const char type = spec.type == '%' ? 'f' : spec.type;
    if (type == 0) raise_unsupported("a format precision without a type is not supported for floats");
    const char pattern[] = {'%', spec.alternate ? '#' : '0', '.', '*', type, 0};
    const int precision = checked_precision(spec.precision.value_or(6));
    char buffer[1024];
    std::snprintf(buffer, sizeof buffer, pattern, precision, spec.type == '%' ? magnitude * 100 : magnitude);
    body = buffer;
    if (spec.type == '%') body += '%';
  }
  return pad(runtime, sign_of(std::signbit(value) && !std::isnan(value), spec), group_digits(body, spec), spec, '>');
}

std::string format_string(Runtime& runtime, std::string_view text, const Specification& spec) {
  if (spec.precision) text = text.substr(0, offset_of(text, static_cast<size_t>(*spec.precision)));
  return pad(runtime, "", std::string(text), spec, '<');
}

Specification parse_specification(std::string_view text) {
  Specification spec;
  size_t position = 0;
  const auto is_align = [&](size_t at) {
    return at < text.size() && std::string_view("<>^=").find(text[at]) != std::string_view::npos;
  };
  if (!text.empty()) {
    size_t after = 0;
    next_code_point(text, after);
    if (is_align(after)) {
      spec.fill = text.substr(0, after);
      spec.align = text[after];
      position = after + 1;
    } else if (is_align(0)) {
      spec.align = text[0];
      position = 1;
    }
  }
  const auto skip = [&](char c) { return position < text.size() && text[position] == c ? (++position, true) : false; };
  if (skip('+'))
    spec.sign = '+';
  else if (skip(' '))
    spec.sign = ' ';
  else
    skip('-');
  spec.alternate = skip('#');
  if (skip('0')) spec.zero = true;
  spec.width = read_number(text, position);
  spec.comma = skip(',');
  spec.underscore = skip('_');
  if (skip('.')) {
    const size_t start = position;
    spec.precision = read_number(text, position);
    if (position == start) raise("format specifier missing precision");
  }
  if (position < text.size()) spec.type = text[position++];
  if (position != text.size()) raise("invalid format specifier {}", quote(text));
  return spec;
}

// Values for %-conversions, taken in order or by name.
class PercentValues {
 public:
  PercentValues(const Value& values) : values_(values), tuple_(values.list() != nullptr && values.list()->is_tuple()) {}

  Value next() {
    if (tuple_ ? used_ >= values_.list()->items.size() : used_ > 0) raise("not enough arguments for format string");
    const size_t index = used_++;
    return tuple_ ? values_.list()->items[index] : values_;
  }
  Value named(std::string_view name) {
    if (values_.dict() == nullptr) raise("format requires a mapping");
    const Value* found = values_.dict()->find(name);
    if (found == nullptr) raise("the format string names the missing key {}", quote(name));
    by_name_ = true;
    return *found;
  }
  void require_all_used() const {
    const bool indexable = values_.dict() != nullptr || values_.is_undefined() || (values_.list() != nullptr && !tuple_);
    if (by_name_) return;
    if (tuple_ ? used_ < values_.list()->items.size() : used_ == 0 && !indexable)
      raise("not all arguments converted during string formatting");
  }

 private:
  Value values_;
  bool tuple_, by_name_ = false;
  size_t used_ = 0;
};

std::string convert_percent(Runtime& runtime, const Value& value, Specification spec, bool markup) {
  const auto escaped = [&](std::string text) {
    return markup && !(value.string() != nullptr && value.string()->markup) ? escape_html(text) : text;
  };
  switch (spec.type) {
    case 's': spec.zero = false; return format_string(runtime, escaped(to_text(runtime, value)), spec);
    case 'r':
    case 'a': spec.zero = false; return format_string(runtime, escaped(to_repr(runtime, value)), spec);
    case 'c':
      spec.zero = false;
      spec.precision.reset();
      if (value.is_integer()) {
        const int64_t code = value.integer();
        if (code < 0 || code > 0x10FFFF) raise("%c arg not in range(0x110000)");
        std::string text;
        append_code_point(text, static_cast<char32_t>(code));
        return format_string(runtime, text, spec);
      }
      if (!value.is_string() || count_code_points(value.string()->text) != 1) raise("%c requires int or char");
      return format_string(runtime, value.string()->text, spec);
    case 'd':
    case 'i':
    case 'u':
      if (const double* real = value.get<double>()) {
        if (!std::isfinite(*real) || std::fabs(*real) >= 9e18) raise("%d format: a number is required that fits in 64 bits");
        return format_integer(runtime, static_cast<int64_t>(*real), spec);
      }
      [[fallthrough]];
    case 'x':
    case 'X':
    case 'o':
      if (!value.is_integer()) raise("%{} format: a number is required, not {}", spec.type, type_name(value));
      if (spec.type == 'i' || spec.type == 'u') spec.type = 'd';
      if (spec.precision) {
        std::string digits = std::to_string(checked_precision(*spec.precision));
        if (value.integer() < 0 || spec.type != 'd') raise_unsupported("a precision for integers is not supported here");
        digits = fmt::format("{:0{}}", value.integer(), checked_precision(*spec.precision));
        return pad(runtime, sign_of(false, spec), digits, spec, '>');
      }
      return format_integer(runtime, value.integer(), spec);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      require_defined(value);
      if (!value.is_number()) raise("must be real number, not {}", type_name(value));
      return format_real(runtime, value.number(), spec);
    default: raise("unsupported format character '{}'", spec.type);
  }
}

}  // namespace

Value format_percent(Runtime& runtime, const String& text, const Value& values) {
  PercentValues arguments(values);
  const std::string_view source = text.text;
  std::string out;
  for (size_t position = 0; position < source.size();) {
    if (source[position] != '%') {
      out += source[position++];
      continue;
    }
    ++position;
    if (position < source.size() && source[position] == '%') {
      out += '%';
      ++position;
      continue;
    }
    std::optional<std::string_view> name;
    if (position < source.size() && source[position] == '(') {
      const size_t end = source.find(')', position);
      if (end == std::string_view::npos) raise("incomplete format key");
      name = source.substr(position + 1, end - position - 1);
      position = end + 1;
    }
    Specification spec;
    for (; position < source.size() && std::string_view("-+ #0").find(source[position]) != std::string_view::npos; ++position) {
      const char flag = source[position];
      if (flag == '-') spec.align = '<';
      if (flag == '+' || (flag == ' ' && spec.sign == 0)) spec.sign = flag;
      if (flag == '#') spec.alternate = true;
      if (flag == '0') spec.zero = true;
    }
    const auto number_or_star = [&] {
      if (position >= source.size() || source[position] != '*') return read_number(source, position);
      ++position;
      return require_integer(arguments.next(), "a width given by *");
    };
    spec.width = number_or_star();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = spec.width == INT64_MIN ? INT64_MAX : -spec.width;
    }
    if (position < source.size() && source[position] == '.') {
      ++position;
      spec.precision = std::max<int64_t>(number_or_star(), 0);
    }
    if (position >= source.size()) raise("incomplete format");
    spec.type = source[position++];
    out += convert_percent(runtime, name ? arguments.named(*name) : arguments.next(), spec, text.markup);
  }
  arguments.require_all_used();
  runtime.produce(out.size());
  return Value(std::move(out), text.markup);
}

std::string format_value(Runtime& runtime, const Value& value, std::string_view specification) {
  if (specification.empty()) return to_text(runtime, value);
  const Specification spec = parse_specification(specification);
  const std::string_view integer_types("bdoxX"), real_types("eEfFgG%");
  if (const String* string = value.string()) {
    if ((spec.type != 0 && spec.type != 's') || spec.sign != 0 || spec.align == '=' || spec.comma)
      raise("invalid format specifier {} for a string", quote(specification));
    Specification plain = spec;
    if (plain.zero && plain.align == 0) plain.fill = "0", plain.align = '<';
    plain.zero = false;
    return format_string(runtime, string->text, plain);
  }
  if (!value.is_number()) raise("unsupported format string passed to {}.__format__", type_name(value));
  if (spec.type != 0 && real_types.find(spec.type) != std::string_view::npos) return format_real(runtime, value.number(), spec);
  if (value.is_integer()) {
    if (spec.precision) raise("precision not allowed in integer format specifier");
    if (spec.type != 0 && integer_types.find(spec.type) == std::string_view::npos)
      raise("unknown format code '{}' for an int", spec.type);
    return format_integer(runtime, value.integer(), spec);
  }
  if (spec.type != 0) raise("unknown format code '{}' for a float", spec.type);
  return format_real(runtime, value.number(), spec);
}

namespace {

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Arguments& arguments) : runtime_(runtime), arguments_(arguments) {}

  std::string run(std::string_view text, int depth) {
    if (depth > 1) raise("max string recursion exceeded");
    std::string out;
    for (size_t position = 0; position < text.size();) {
      const char c = text[position];
      if (c != '{' && c != '}') {
        out += text[position++];
        continue;
      }
      if (position + 1 < text.size() && text[position + 1] == c) {
        out += c;
        position += 2;
        continue;
      }
      if (c == '}') raise("single '}}' encountered in format string");
      const size_t end = closing_brace(text, position);
      out += field(text.substr(position + 1, end - position - 1), depth);
      position = end + 1;
    }
    return out;
  }

 private:
  static size_t closing_brace(std::string_view text, size_t open) {
    int depth = 0;
    for (size_t i = open; i < text.size(); ++i) {
      if (text[i] == '{') ++depth;
      if (text[i] == '}' && --depth == 0) return i;
    }
    raise("expected '}}' before end of string");
  }

  std::string field(std::string_view field, int depth) {
    const size_t colon = field.find(':');
    std::string_view name = field.substr(0, colon);
    const std::string_view specification = colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (mark + 2 != name.size()) raise("invalid conversion in a format string");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = look_up(name);
    if (conversion == 'r')
      value = Value(to_repr(runtime_, value));
    else if (conversion == 's')
      value = Value(to_text(runtime_, value));
    else if (conversion != 0)
      raise_unsupported("the conversion '!{}' is not supported", conversion);
    const std::string expanded =
        specification.find('{') == std::string_view::npos ? std::string(specification) : run(specification, depth + 1);
    return format_value(runtime_, value, expanded);
  }

  Value look_up(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = first(path.substr(0, end));
    for (size_t position = end; position < path.size();) {
      if (path[position] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", position + 1), path.size());
        value = get_attribute(runtime_, value, path.substr(position + 1, stop - position - 1));
        position = stop;
      } else {
        const size_t stop = path.find(']', position);
        if (path[position] != '[' || stop == std::string_view::npos) raise("missing ']' in format string");
        const std::string_view key = path.substr(position + 1, stop - position - 1);
        const bool number = !key.empty() && key.find_first_not_of("0123456789") == std::string_view::npos;
        size_t at = 0;
        value = get_item(runtime_, value, number ? Value(read_number(key, at)) : Value(key));
        position = stop + 1;
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    const bool number = name.find_first_not_of("0123456789") == std::string_view::npos;
    if (number) {
      if (name.empty() ? manual_ : automatic_) raise("cannot switch between manual and automatic field numbering");
      (name.empty() ? automatic_ : manual_) = true;
      size_t at = 0;
      const auto index = static_cast<size_t>(name.empty() ? next_++ : read_number(name, at));
      if (index >= arguments_.positional.size()) raise("replacement index {} out of range for positional arguments", index);
      return arguments_.positional[index];
    }
    for (const auto& [key, value] : arguments_.keyword) {
      if (key == name) return value;
    }
    raise("the format string names the missing argument {}", quote(name));
  }

  Runtime& runtime_;
  const Arguments& arguments_;
  bool automatic_ = false, manual_ = false;
  int64_t next_ = 0;
};

}  // namespace

std::string format_braces(Runtime& runtime, std::string_view text, const Arguments& arguments) {
  std::string out = BraceFormatter(runtime, arguments).run(text, 0);
  runtime.produce(out.size());
  return out;
}

}  // namespace salient::models::jinja
