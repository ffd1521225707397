#include "models/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

constexpr unsigned kMaxContainerDepth = 400;
constexpr size_t kIndexFrom = 8;  // smaller dicts are searched entry by entry

// Exact comparison of an int with a float; nullopt for NaN.
std::optional<int> compare_mixed(int64_t left, double right) {
  if (std::isnan(right)) return std::nullopt;
  if (right >= 9223372036854775808.0) return -1;
  if (right < -9223372036854775808.0) return 1;
  const double whole = std::trunc(right);
  const auto integer = static_cast<int64_t>(whole);
  if (left != integer) return left < integer ? -1 : 1;
  return right > whole ? -1 : right < whole ? 1 : 0;
}

std::optional<int> compare_numbers(const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer()) {
    const int64_t a = left.integer(), b = right.integer();
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (left.is_integer()) return compare_mixed(left.integer(), right.number());
  if (right.is_integer()) {
    const auto order = compare_mixed(right.integer(), left.number());
    return order ? std::optional<int>(-*order) : std::nullopt;
  }
  const double a = left.number(), b = right.number();
  if (std::isnan(a) || std::isnan(b)) return std::nullopt;
  return a < b ? -1 : a > b ? 1 : 0;
}

bool is_same_list_kind(const List& left, const List& right) {
  if (left.is_tuple() || right.is_tuple()) return left.is_tuple() && right.is_tuple();
  return left.kind == right.kind;
}

bool is_equal_dict(Runtime& runtime, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  return std::all_of(left.entries.begin(), left.entries.end(), [&](const auto& entry) {
    const Value* other = right.find(runtime, entry.first);
    return other != nullptr && is_equal(runtime, entry.second, *other);
  });
}

void write(Runtime& runtime, std::string& out, const Value& value, bool repr);

void write_items(Runtime& runtime, std::string& out, const List& list, const char* open, const char* close) {
  out += open;
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    write(runtime, out, list.items[i], true);
  }
  out += close;
}

void write_dict(Runtime& runtime, std::string& out, const Dict& dict) {
  out += '{';
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out += ", ";
    write(runtime, out, dict.entries[i].first, true);
    out += ": ";
    write(runtime, out, dict.entries[i].second, true);
  }
  out += '}';
}

void write_list(Runtime& runtime, std::string& out, const List& list) {
  switch (list.kind) {
    case List::Kind::kList: return write_items(runtime, out, list, "[", "]");
    case List::Kind::kTuple:
    case List::Kind::kGroup: return write_items(runtime, out, list, "(", list.items.size() == 1 ? ",)" : ")");
    case List::Kind::kKeys: return write_items(runtime, out, list, "dict_keys([", "])");
    case List::Kind::kValues: return write_items(runtime, out, list, "dict_values([", "])");
    case List::Kind::kItems: return write_items(runtime, out, list, "dict_items([", "])");
  }
}

void write(Runtime& runtime, std::string& out, const Value& value, bool repr) {
  runtime.step();
  if (const String* string = value.string()) {
    runtime.produce(string->text.size());
    if (!repr) {
      out += string->text;
    } else if (string->markup) {
      out += "Markup(" + quote(string->text) + ")";
    } else {
      out += quote(string->text);
    }
  } else if (const List* list = value.list()) {
    const DepthGuard guard(runtime);
    write_list(runtime, out, *list);
  } else if (const Dict* dict = value.dict()) {
    const DepthGuard guard(runtime);
    write_dict(runtime, out, *dict);
  } else if (value.is_undefined()) {
    if (!repr) require_defined_if_strict(runtime, value);
    if (repr) out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (const bool* truth = value.get<bool>()) {
    out += *truth ? "True" : "False";
  } else if (const int64_t* integer = value.get<int64_t>()) {
    out += std::to_string(*integer);
  } else if (const double* number = value.get<double>()) {
    out += format_float(*number);
  } else if (const auto* range = value.get<std::shared_ptr<const Range>>()) {
    const Range& r = **range;
    out += r.step == 1 ? fmt::format("range({}, {})", r.start, r.stop) : fmt::format("range({}, {}, {})", r.start, r.stop, r.step);
  } else if (const auto* names = value.get<std::shared_ptr<Namespace>>()) {
    const DepthGuard guard(runtime);  // a namespace can hold itself
    out += "<Namespace ";
    write_dict(runtime, out, (*names)->attributes);
    out += '>';
  } else if (const auto* function = value.get<std::shared_ptr<const Function>>(); function != nullptr && (*function)->macro) {
    out += "<Macro " + ((*function)->name.empty() ? "anonymous" : quote((*function)->name)) + ">";
  } else {
    // Python prints an address here; templates cannot depend on it.
    out += fmt::format("<{} object>", type_name(value));
  }
}

}  // namespace

int64_t Range::size() const {
  const __int128 span = step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const __int128 stride = step > 0 ? step : -static_cast<__int128>(step);
  return span <= 0 ? 0 : static_cast<int64_t>((span + stride - 1) / stride);
}

int64_t Range::at(int64_t index) const { return static_cast<int64_t>(start + static_cast<__int128>(step) * index); }

Value::Value(std::string text, bool markup) : data_(std::make_shared<const String>(String{std::move(text), markup})) {}

Value Value::undefined(std::string message, bool lenient) {
  return Value(Data(Undefined{std::make_shared<const std::string>(std::move(message)), lenient}));
}

const String* Value::string() const {
  const auto* pointer = get<std::shared_ptr<const String>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const List* Value::list() const {
  const auto* pointer = get<std::shared_ptr<const List>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const Dict* Value::dict() const {
  const auto* pointer = get<std::shared_ptr<const Dict>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

int64_t Value::integer() const {
  const bool* truth = get<bool>();
  return truth != nullptr ? static_cast<int64_t>(*truth) : std::get<int64_t>(data_);
}

double Value::number() const {
  const double* real = get<double>();
  return real != nullptr ? *real : static_cast<double>(integer());
}

unsigned Value::depth() const {
  if (const List* values = list()) return values->depth;
  if (const Dict* entries = dict()) return entries->depth;
  if (const auto* iterator = get<std::shared_ptr<Iterator>>()) return (*iterator)->depth;
  if (const auto* function = get<std::shared_ptr<const Function>>()) return (*function)->depth;
  if (const auto* cycler = get<std::shared_ptr<Cycler>>()) return (*cycler)->depth;
  return 0;
}

unsigned max_depth(const std::vector<Value>& values) {
  unsigned depth = 0;
  for (const Value& value : values) depth = std::max(depth, value.depth());
  return depth;
}

unsigned max_depth(const Arguments& arguments) {
  unsigned depth = max_depth(arguments.positional);
  for (const auto& [name, value] : arguments.keyword) depth = std::max(depth, value.depth());
  return depth;
}

unsigned checked_depth(unsigned depth) {
  if (depth > kMaxContainerDepth) raise("values are nested too deep: more than {} levels", kMaxContainerDepth);
  return depth;
}

Value make_list(std::vector<Value> items, List::Kind kind) {
  const unsigned depth = checked_depth(max_depth(items) + 1);
  return Value(std::make_shared<const List>(List{std::move(items), kind, depth}));
}

Value make_dict(Dict dict) {
  checked_depth(dict.depth);
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

const Value* Dict::find(std::string_view key) const {
  if (!index_.empty()) {
    const auto found = index_.find(key);
    return found == index_.end() ? nullptr : &entries[found->second].second;
  }
  for (const auto& [name, value] : entries) {
    const String* string = name.string();
    if (string != nullptr && string->text == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find(Runtime& runtime, const Value& key) const {
  if (const String* string = key.string()) return find(string->text);
  require_hashable(runtime, key);
  for (const auto& [name, value] : entries) {
    runtime.step();
    if (!name.is_string() && is_equal(runtime, name, key)) return &value;
  }
  return nullptr;
}

void Dict::set(Runtime& runtime, Value key, Value value) {
  runtime.step();
  depth = std::max({depth, key.depth() + 1, value.depth() + 1});
  if (const Value* present = find(runtime, key)) {
    *const_cast<Value*>(present) = std::move(value);  // an element of `entries`, which this object owns
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  if (entries.size() < kIndexFrom) return;
  for (size_t i = entries.size() == kIndexFrom ? 0 : entries.size() - 1; i < entries.size(); ++i) {
    if (const String* string = entries[i].first.string()) index_.emplace(string->text, i);
  }
}

void Dict::append(std::string_view key, Value value) {
  depth = std::max(depth, value.depth() + 1);
  entries.emplace_back(Value(key), std::move(value));
  if (entries.size() < kIndexFrom) return;
  for (size_t i = entries.size() == kIndexFrom ? 0 : entries.size() - 1; i < entries.size(); ++i) {
    if (const String* string = entries[i].first.string()) index_.emplace(string->text, i);
  }
}

bool is_true(const Value& value) {
  if (const bool* truth = value.get<bool>()) return *truth;
  if (const int64_t* integer = value.get<int64_t>()) return *integer != 0;
  if (const double* number = value.get<double>()) return *number != 0.0;
  if (const String* string = value.string()) return !string->text.empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  if (const auto* range = value.get<std::shared_ptr<const Range>>()) return (*range)->size() > 0;
  return !value.is_none() && !value.is_undefined();
}

bool is_true(Runtime& runtime, const Value& value) {
  require_defined_if_strict(runtime, value);
  return is_true(value);
}

std::string type_name(const Value& value) {
  return std::visit(
      [&](const auto& data) -> std::string {
        using T = std::decay_t<decltype(data)>;
        if constexpr (std::is_same_v<T, None>)
          return "None";
        else if constexpr (std::is_same_v<T, Undefined>)
          return "Undefined";
        else if constexpr (std::is_same_v<T, bool>)
          return "bool";
        else if constexpr (std::is_same_v<T, int64_t>)
          return "int";
        else if constexpr (std::is_same_v<T, double>)
          return "float";
        else if constexpr (std::is_same_v<T, std::shared_ptr<const String>>)
          return data->markup ? "Markup" : "str";
        else if constexpr (std::is_same_v<T, std::shared_ptr<const Dict>>)
          return "dict";
        else if constexpr (std::is_same_v<T, std::shared_ptr<Namespace>>)
          return "Namespace";
        else if constexpr (std::is_same_v<T, std::shared_ptr<const Range>>)
          return "range";
        else if constexpr (std::is_same_v<T, std::shared_ptr<Iterator>>)
          return data->name;
        else if constexpr (std::is_same_v<T, std::shared_ptr<Loop>>)
          return "LoopContext";
        else if constexpr (std::is_same_v<T, std::shared_ptr<const Function>>)
          return data->macro ? "Macro" : "function";
        else if constexpr (std::is_same_v<T, std::shared_ptr<Cycler>>)
          return "Cycler";
        else {
          switch (data->kind) {
            case List::Kind::kList: return "list";
            case List::Kind::kTuple:
            case List::Kind::kGroup: return "tuple";
            case List::Kind::kKeys: return "dict_keys";
            case List::Kind::kValues: return "dict_values";
            case List::Kind::kItems: return "dict_items";
          }
          return "list";
        }
      },
      value.data());
}

std::string to_text(Runtime& runtime, const Value& value) {
  std::string out;
  write(runtime, out, value, false);
  return out;
}

std::string to_repr(Runtime& runtime, const Value& value) {
  std::string out;
  write(runtime, out, value, true);
  return out;
}

bool is_equal(Runtime& runtime, const Value& left, const Value& right) {
  runtime.step();
  require_defined_if_strict(runtime, left);
  require_defined_if_strict(runtime, right);
  if (left.is_number() && right.is_number()) return compare_numbers(left, right) == 0;
  if (const String* a = left.string()) {
    const String* b = right.string();
    return b != nullptr && a->text == b->text;
  }
  if (const List* a = left.list()) {
    const List* b = right.list();
    if (b == nullptr) return false;
    if (a == b) return true;
    return is_same_list_kind(*a, *b) && std::equal(a->items.begin(), a->items.end(), b->items.begin(), b->items.end(),
                                                   [&](const Value& x, const Value& y) { return is_equal(runtime, x, y); });
  }
  if (const Dict* a = left.dict()) {
    const Dict* b = right.dict();
    return b != nullptr && (a == b || is_equal_dict(runtime, *a, *b));
  }
  if (left.data().index() != right.data().index()) return false;
  if (left.is_none() || left.is_undefined()) return true;
  if (const auto* a = left.get<std::shared_ptr<const Range>>()) {
    const Range& x = **a;
    const Range& y = **right.get<std::shared_ptr<const Range>>();
    if (x.size() != y.size() || x.size() == 0) return x.size() == y.size();
    return x.start == y.start && (x.size() == 1 || x.step == y.step);
  }
  return std::visit(
      [&](const auto& data) {
        using T = std::decay_t<decltype(data)>;
        if constexpr (requires { data.get(); }) return data.get() == std::get<T>(right.data()).get();
        return false;
      },
      left.data());
}

bool is_less(Runtime& runtime, const Value& left, const Value& right, std::string_view symbol) {
  runtime.step();
  require_defined(left);
  require_defined(right);
  if (left.is_number() && right.is_number()) {
    const auto order = compare_numbers(left, right);
    return order.has_value() && *order < 0;
  }
  if (left.is_string() && right.is_string()) return left.string()->text < right.string()->text;  // UTF-8 keeps code point order
  const List* a = left.list();
  const List* b = right.list();
  if (a != nullptr && b != nullptr && !a->is_view() && is_same_list_kind(*a, *b)) {
    for (size_t i = 0; i < a->items.size() && i < b->items.size(); ++i) {
      if (!is_equal(runtime, a->items[i], b->items[i])) return is_less(runtime, a->items[i], b->items[i], symbol);
    }
    return a->items.size() < b->items.size();
  }
  raise("'{}' is not supported between '{}' and '{}'", symbol, type_name(left), type_name(right));
}

void require_hashable(Runtime& runtime, const Value& value) {
  runtime.step();
  require_defined_if_strict(runtime, value);
  const List* list = value.list();
  if (value.dict() != nullptr || (list != nullptr && !list->is_tuple())) raise("unhashable type: '{}'", type_name(value));
  if (list == nullptr) return;
  for (const Value& item : list->items) require_hashable(runtime, item);
}

void raise_undefined(const Value& value) { raise("{}", *value.get<Undefined>()->message); }

const Value& require_defined(const Value& value) {
  if (value.is_undefined()) raise_undefined(value);
  return value;
}

void require_defined_if_strict(Runtime& runtime, const Value& value) {
  if (const Undefined* undefined = value.get<Undefined>();
      undefined != nullptr && runtime.options.strict_undefined && !undefined->lenient)
    raise_undefined(value);
}

}  // namespace salient::models::jinja
