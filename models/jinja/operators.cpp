#include "models/jinja/operators.h"

#include <cmath>

#include "models/jinja/format.h"
#include "models/jinja/iteration.h"
#include "models/jinja/methods.h"
#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

std::string_view spelling(BinaryOperator symbol) {
  switch (symbol) {
    case BinaryOperator::kAdd: return "+";
    case BinaryOperator::kSubtract: return "-";
    case BinaryOperator::kMultiply: return "*";
    case BinaryOperator::kDivide: return "/";
    case BinaryOperator::kFloorDivide: return "//";
    case BinaryOperator::kModulo: return "%";
    case BinaryOperator::kPower: return "**";
  }
  return "?";
}

[[noreturn]] void raise_overflow() { raise_unsupported("integers over 64 bits are not supported"); }

int64_t floor_divide(int64_t left, int64_t right) {
  if (right == 0) raise("integer division or modulo by zero");
  if (right == -1) {
    int64_t negated = 0;
    if (__builtin_sub_overflow(int64_t{0}, left, &negated)) raise_overflow();
    return negated;
  }
  const int64_t quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

int64_t modulo(int64_t left, int64_t right) {
  if (right == 0) raise("integer division or modulo by zero");
  if (right == -1) return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) raise("0.0 cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t result = 1, factor = base;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, factor, &result)) raise_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(factor, factor, &factor)) raise_overflow();
  }
  return result;
}

Value apply_integers(BinaryOperator symbol, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (symbol) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(left, right, &result)) raise_overflow();
      return result;
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(left, right, &result)) raise_overflow();
      return result;
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(left, right, &result)) raise_overflow();
      return result;
    case BinaryOperator::kDivide:
      if (right == 0) raise("division by zero");
      return static_cast<double>(static_cast<long double>(left) / static_cast<long double>(right));
    case BinaryOperator::kFloorDivide: return floor_divide(left, right);
    case BinaryOperator::kModulo: return modulo(left, right);
    case BinaryOperator::kPower: return power(left, right);
  }
  return {};
}

double float_modulo(double left, double right) {
  double rest = std::fmod(left, right);
  if (rest == 0.0) return std::copysign(0.0, right);
  if ((rest < 0) != (right < 0)) rest += right;
  return rest;
}

Value apply_floats(BinaryOperator symbol, double left, double right) {
  const bool divides =
      symbol == BinaryOperator::kDivide || symbol == BinaryOperator::kFloorDivide || symbol == BinaryOperator::kModulo;
  if (divides && right == 0.0) raise("float division by zero");
  switch (symbol) {
    case BinaryOperator::kAdd: return left + right;
    case BinaryOperator::kSubtract: return left - right;
    case BinaryOperator::kMultiply: return left * right;
    case BinaryOperator::kDivide: return left / right;
    case BinaryOperator::kModulo: return float_modulo(left, right);
    case BinaryOperator::kFloorDivide: {
      const double exact = (left - float_modulo(left, right)) / right;
      const double floored = std::floor(exact);
      return exact == 0.0 ? std::copysign(0.0, left / right) : exact - floored > 0.5 ? floored + 1.0 : floored;
    }
    case BinaryOperator::kPower: {
      if (left == 0.0 && right < 0) raise("0.0 cannot be raised to a negative power");
      if (left < 0 && right != std::floor(right) && std::isfinite(left) && std::isfinite(right))
        raise_unsupported("complex numbers are not supported");
      const double result = std::pow(left, right);
      if (std::isinf(result) && std::isfinite(left) && std::isfinite(right)) raise("numerical result out of range");
      return result;
    }
  }
  return {};
}

Value add_strings(Runtime& runtime, const String& left, const String& right) {
  runtime.produce(left.text.size() + right.text.size());
  if (left.markup == right.markup) return Value(left.text + right.text, left.markup);
  return Value((left.markup ? left.text : escape_html(left.text)) + (right.markup ? right.text : escape_html(right.text)), true);
}

Value repeat(Runtime& runtime, const Value& sequence, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (const String* string = sequence.string()) {
    size_t size = 0;
    if (__builtin_mul_overflow(string->text.size(), static_cast<size_t>(count), &size)) size = SIZE_MAX;
    runtime.produce(size);
    std::string text;
    text.reserve(size);
    for (int64_t i = 0; size > 0 && i < count; ++i) text += string->text;
    return Value(std::move(text), string->markup);
  }
  const List& list = *sequence.list();
  size_t size = 0;
  if (__builtin_mul_overflow(list.items.size(), static_cast<size_t>(count), &size)) size = SIZE_MAX / 2;
  runtime.step(size);
  std::vector<Value> items;
  items.reserve(size);
  for (int64_t i = 0; size > 0 && i < count; ++i) items.insert(items.end(), list.items.begin(), list.items.end());
  return make_list(std::move(items), list.is_tuple() ? List::Kind::kTuple : List::Kind::kList);
}

bool is_repeatable(const Value& value) { return value.is_string() || (value.list() != nullptr && !value.list()->is_view()); }

// The element number of an index that may count from the end; nullopt outside.
std::optional<size_t> normalize(int64_t index, int64_t size) {
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  return static_cast<size_t>(index);
}

// object[key] without Jinja2's fall-back to attributes; nullopt where Python raises TypeError or LookupError.
std::optional<Value> subscript(Runtime& runtime, const Value& object, const Value& key) {
  if (const Dict* dict = object.dict()) {
    const List* list = key.list();
    if (key.dict() != nullptr || (list != nullptr && !list->is_tuple())) return std::nullopt;
    const Value* found = dict->find(runtime, key);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (!key.is_integer()) return std::nullopt;
  if (const String* string = object.string()) {
    runtime.read(string->text.size());
    const auto index = normalize(key.integer(), static_cast<int64_t>(count_code_points(string->text)));
    if (!index) return std::nullopt;
    const size_t start = offset_of(string->text, *index);
    size_t end = start;
    next_code_point(string->text, end);
    return Value(string->text.substr(start, end - start), string->markup);
  }
  if (const List* list = object.list(); list != nullptr && !list->is_view()) {
    const auto index = normalize(key.integer(), static_cast<int64_t>(list->items.size()));
    return index ? std::optional<Value>(list->items[*index]) : std::nullopt;
  }
  if (const auto* range = object.get<std::shared_ptr<const Range>>()) {
    const auto index = normalize(key.integer(), (*range)->size());
    return index ? std::optional<Value>(Value((*range)->at(static_cast<int64_t>(*index)))) : std::nullopt;
  }
  return std::nullopt;
}

Value missing(Runtime& runtime, const Value& object, const Value& key) {
  // Jinja2 names the type of the object, and None as itself.
  if (const String* name = key.string()) {
    return Value::undefined(
        fmt::format("'{}{}' has no attribute {}", type_name(object), object.is_none() ? "" : " object", quote(name->text)));
  }
  return Value::undefined(
      fmt::format("{}{} has no element {}", type_name(object), object.is_none() ? "" : " object", to_repr(runtime, key)));
}

}  // namespace

int64_t require_integer(const Value& value, std::string_view what) {
  require_defined(value);
  if (!value.is_integer()) raise("{} must be an integer, not '{}'", what, type_name(value));
  return value.integer();
}

Value apply(Runtime& runtime, BinaryOperator symbol, const Value& left, const Value& right) {
  const String* text = left.string();
  if (symbol == BinaryOperator::kModulo && text != nullptr) return format_percent(runtime, *text, right);
  require_defined(left);
  require_defined(right);
  if (left.is_integer() && right.is_integer()) return apply_integers(symbol, left.integer(), right.integer());
  if (left.is_number() && right.is_number()) return apply_floats(symbol, left.number(), right.number());
  if (symbol == BinaryOperator::kAdd) {
    if (text != nullptr && right.is_string()) return add_strings(runtime, *text, *right.string());
    const List* a = left.list();
    const List* b = right.list();
    if (a != nullptr && b != nullptr && !a->is_view() && !b->is_view() && a->is_tuple() == b->is_tuple()) {
      runtime.step(a->items.size() + b->items.size());
      std::vector<Value> items = a->items;
      items.insert(items.end(), b->items.begin(), b->items.end());
      return make_list(std::move(items), a->is_tuple() ? List::Kind::kTuple : List::Kind::kList);
    }
  }
  if (symbol == BinaryOperator::kMultiply) {
    if (is_repeatable(left) && right.is_integer()) return repeat(runtime, left, right.integer());
    if (is_repeatable(right) && left.is_integer()) return repeat(runtime, right, left.integer());
  }
  raise("'{}' is not possible between '{}' and '{}'", spelling(symbol), type_name(left), type_name(right));
}

Value apply(Runtime& runtime, UnaryOperator symbol, const Value& operand) {
  if (symbol == UnaryOperator::kNot) return !is_true(runtime, operand);
  require_defined(operand);
  if (const double* number = operand.get<double>()) return symbol == UnaryOperator::kNegate ? -*number : *number;
  if (!operand.is_integer()) raise("bad operand for a sign: '{}'", type_name(operand));
  if (symbol == UnaryOperator::kPlus) return operand.integer();
  return apply_integers(BinaryOperator::kSubtract, 0, operand.integer());
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const String* string = container.string()) {
    const String* part = item.string();
    if (part == nullptr) raise("'in <string>' needs a string on its left, not '{}'", type_name(item));
    runtime.read(string->text.size());
    return find_text(string->text, part->text) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(runtime, item) != nullptr;
  const std::shared_ptr<Iterator> iterator = iterate(runtime, container);
  for (Value element; iterator->next(runtime, element);) {
    if (is_equal(runtime, element, item)) return true;
  }
  return false;
}

bool compare(Runtime& runtime, CompareOperator symbol, const Value& left, const Value& right) {
  const auto is_nan = [](const Value& value) {
    const double* number = value.get<double>();
    return number != nullptr && std::isnan(*number);
  };
  switch (symbol) {
    case CompareOperator::kEqual: return is_equal(runtime, left, right);
    case CompareOperator::kNotEqual: return !is_equal(runtime, left, right);
    case CompareOperator::kLess: return is_less(runtime, left, right, "<");
    case CompareOperator::kGreater: return is_less(runtime, right, left, ">");
    case CompareOperator::kLessEqual: return !is_less(runtime, right, left, "<=") && !is_nan(left) && !is_nan(right);
    case CompareOperator::kGreaterEqual: return !is_less(runtime, left, right, ">=") && !is_nan(left) && !is_nan(right);
    case CompareOperator::kIn: return contains(runtime, right, left);
    case CompareOperator::kNotIn: return !contains(runtime, right, left);
  }
  return false;
}

Value get_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  require_defined(object);
  if (std::optional<Value> attribute = find_attribute(runtime, object, name)) return std::move(*attribute);
  if (object.dict() != nullptr) {
    if (const Value* found = object.dict()->find(name)) return *found;
  }
  return missing(runtime, object, Value(name));
}

Value get_item(Runtime& runtime, const Value& object, const Value& key) {
  require_defined(object);
  if (std::optional<Value> found = subscript(runtime, object, key)) return std::move(*found);
  if (const String* name = key.string()) {
    if (std::optional<Value> attribute = find_attribute(runtime, object, name->text)) return std::move(*attribute);
  }
  return missing(runtime, object, key);
}

Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  require_defined(object);
  const List* list = object.list();
  const String* string = object.string();
  const auto* range = object.get<std::shared_ptr<const Range>>();
  if (string == nullptr && range == nullptr && (list == nullptr || list->is_view()))
    raise("'{}' object cannot be sliced", type_name(object));
  const int64_t stride = step.is_none() ? 1 : require_integer(step, "a slice step");
  if (stride == 0) raise("slice step cannot be zero");
  const int64_t size = *length_of(object);
  const auto clamp = [&](const Value& bound, int64_t open) {
    if (bound.is_none()) return open;
    int64_t index = require_integer(bound, "a slice bound");
    if (index < 0) index = std::max(index + size, int64_t{stride < 0 ? -1 : 0});
    return std::min(index, stride < 0 ? size - 1 : size);
  };
  const int64_t first = clamp(start, stride < 0 ? size - 1 : 0);
  const int64_t last = clamp(stop, stride < 0 ? -1 : size);
  const Range positions{first, last, stride};
  const int64_t count = positions.size();
  runtime.step(static_cast<size_t>(count));
  if (range != nullptr) {
    const Range& r = **range;
    const auto checked = [](__int128 number) {
      if (number != static_cast<int64_t>(number)) raise_unsupported("ranges beyond 64 bits are not supported");
      return static_cast<int64_t>(number);
    };
    const __int128 wide = r.step;
    return Value(std::make_shared<const Range>(
        Range{checked(r.start + wide * first), checked(r.start + wide * last), checked(wide * stride)}));
  }
  if (list != nullptr) {
    std::vector<Value> items;
    for (int64_t i = 0; i < count; ++i) items.push_back(list->items[static_cast<size_t>(first + i * stride)]);
    return make_list(std::move(items), list->is_tuple() ? List::Kind::kTuple : List::Kind::kList);
  }
  runtime.read(string->text.size());
  if (stride == 1) {
    const size_t from = offset_of(string->text, static_cast<size_t>(first));
    const size_t length = offset_of(std::string_view(string->text).substr(from), static_cast<size_t>(count));
    runtime.produce(length);
    return Value(string->text.substr(from, length), string->markup);
  }
  runtime.step(static_cast<size_t>(size));
  const std::vector<std::string_view> characters = split_code_points(string->text);
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += characters[static_cast<size_t>(first + i * stride)];
  runtime.produce(text.size());
  return Value(std::move(text), string->markup);
}

Value call(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  require_defined(callee);
  const DepthGuard guard(runtime);
  if (const auto* loop = callee.get<std::shared_ptr<Loop>>()) {
    if (!(*loop)->recurse) raise("the loop must have the 'recursive' marker to be called");
    if (arguments.positional.size() != 1 || !arguments.keyword.empty()) raise("loop(...) takes one argument");
    return (*loop)->recurse(runtime, arguments.positional[0], (*loop)->depth0 + 1);
  }
  const auto* function = callee.get<std::shared_ptr<const Function>>();
  if (function == nullptr) raise("'{}' object is not callable", callee.is_none() ? "NoneType" : type_name(callee));
  const std::shared_ptr<const Function> kept = *function;  // a macro may replace the variable that holds it
  return kept->call(runtime, arguments);
}

}  // namespace salient::models::jinja
