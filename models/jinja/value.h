// Values of a template while it runs: Python's, as far as templates can make and see them.
//
// Lists, tuples and dicts are immutable (the sandbox that transformers uses forbids their mutating methods), so copies share. Only
// namespaces, iterators and loop objects have state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace salient::models::jinja {

struct Runtime;
class Value;

struct None {};
// The result of a missing name, attribute or item: prints as nothing, is false, empty and equal to its like; any other use is an
// error with `message`. With RenderOptions::strict_undefined these are errors, too.
struct Undefined {
  std::shared_ptr<const std::string> message;
  bool lenient = false;  // in strict templates, too: an inline if without else
};
struct String {
  std::string text;
  bool markup = false;  // made by the safe and escape filters: markupsafe.Markup, which escapes what is added to it
};
struct List;
struct Dict;
struct Namespace;
struct Range {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
  int64_t at(int64_t index) const;  // from 0 to size() - 1
};
struct Iterator;
struct Loop;
struct Function;
struct Cycler;

class Value {
 public:
  using Data =
      std::variant<None, Undefined, bool, int64_t, double, std::shared_ptr<const String>, std::shared_ptr<const List>,
                   std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Range>, std::shared_ptr<Iterator>,
                   std::shared_ptr<Loop>, std::shared_ptr<const Function>, std::shared_ptr<Cycler>>;

  Value() = default;
  Value(Data data) : data_(std::move(data)) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string text, bool markup = false);
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  template <typename T>
  Value(std::shared_ptr<T> object) : data_(std::move(object)) {}
  static Value undefined(std::string message, bool lenient = false);

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  const Data& data() const { return data_; }

  bool is_none() const { return get<None>() != nullptr; }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_string() const { return get<std::shared_ptr<const String>>() != nullptr; }
  bool is_integer() const { return get<bool>() != nullptr || get<int64_t>() != nullptr; }  // bool is an int in Python
  bool is_number() const { return is_integer() || get<double>() != nullptr; }

  // Null where the value is of another kind.
  const String* string() const;
  const List* list() const;  // list, tuple or dict view
  const Dict* dict() const;
  // The value of an int or a bool. Call only when is_integer().
  int64_t integer() const;
  // The value of a number as float. Call only when is_number().
  double number() const;

  // How deep containers are nested; bounded, so that recursion over values is.
  unsigned depth() const;

 private:
  Data data_;
};

struct List {
  enum class Kind { kList, kTuple, kGroup, kKeys, kValues, kItems };  // kGroup: groupby's pair; the last three: dict views
  std::vector<Value> items;
  Kind kind = Kind::kList;
  unsigned depth = 1;
  bool is_view() const { return kind >= Kind::kKeys; }
  bool is_tuple() const { return kind == Kind::kTuple || kind == Kind::kGroup; }
};

// Keeps insertion order. Keys are hashable values; 1, 1.0 and True are one key.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  unsigned depth = 1;

  // Null when there is none. Errors: a key that cannot be hashed.
  const Value* find(Runtime& runtime, const Value& key) const;
  const Value* find(std::string_view key) const;
  // Replaces in place or appends.
  void set(Runtime& runtime, Value key, Value value);
  void append(std::string_view key, Value value);  // a key that is not there yet

 private:
  std::unordered_map<std::string_view, size_t> index_;  // of string keys, into entries
};

struct Namespace {
  Dict attributes;
};

// One pass over values. `next` returns false at the end.
struct Iterator {
  std::function<bool(Runtime&, Value&)> next;
  std::string name;
  unsigned depth = 1;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

struct Function {
  std::string name;
  std::function<Value(Runtime&, const Arguments&)> call;
  bool macro = false;
  unsigned depth = 1;
};

struct Cycler {
  std::vector<Value> items;
  size_t position = 0;
  unsigned depth = 1;
};

unsigned max_depth(const std::vector<Value>& values);
unsigned max_depth(const Arguments& arguments);
// Errors: a container nested deeper than the limit.
unsigned checked_depth(unsigned depth);
Value make_list(std::vector<Value> items, List::Kind kind = List::Kind::kList);
Value make_dict(Dict dict);

bool is_true(const Value& value);
// The same where an undefined value may be an error.
bool is_true(Runtime& runtime, const Value& value);
// type(value).__name__
std::string type_name(const Value& value);
// str(value) and repr(value).
std::string to_text(Runtime& runtime, const Value& value);
std::string to_repr(Runtime& runtime, const Value& value);
// Python's ==.
bool is_equal(Runtime& runtime, const Value& left, const Value& right);
// Python's <. Errors: kinds that have no order.
bool is_less(Runtime& runtime, const Value& left, const Value& right, std::string_view symbol = "<");
// Errors: a value that Python could not use as a dict key.
void require_hashable(Runtime& runtime, const Value& value);
// The error of an undefined value that is used as a value.
[[noreturn]] void raise_undefined(const Value& value);
// `value`, unless it is undefined.
const Value& require_defined(const Value& value);
// The same where the template is strict; lenient ones take it for an empty value.
void require_defined_if_strict(Runtime& runtime, const Value& value);

}  // namespace salient::models::jinja
