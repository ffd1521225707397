#include "models/jinja/iteration.h"

#include <algorithm>

#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

constexpr unsigned kMaxIteratorDepth = 450;  // iterators over iterators: map(map(map(...)))

Value make_method(std::string name, std::function<Value(Runtime&, const Arguments&)> call) {
  return Value(std::make_shared<const Function>(Function{std::move(name), std::move(call)}));
}

}  // namespace

std::shared_ptr<Iterator> make_iterator(std::string name, unsigned depth, std::function<bool(Runtime&, Value&)> next) {
  if (depth > kMaxIteratorDepth) raise("iterators are nested more than {} levels deep", kMaxIteratorDepth);
  // Iterators take from iterators, and through namespaces also where their depth does not say so.
  auto guarded = [next = std::move(next)](Runtime& runtime, Value& out) {
    const DepthGuard guard(runtime);
    return next(runtime, out);
  };
  return std::make_shared<Iterator>(Iterator{std::move(guarded), std::move(name), depth});
}

std::shared_ptr<Iterator> no_items() {
  return make_iterator("generator", 1, [](Runtime&, Value&) { return false; });
}

bool is_iterable(Runtime& runtime, const Value& value) {
  require_defined_if_strict(runtime, value);
  return value.is_string() || value.list() != nullptr || value.dict() != nullptr || value.is_undefined() ||
         value.get<std::shared_ptr<const Range>>() != nullptr || value.get<std::shared_ptr<Iterator>>() != nullptr ||
         value.get<std::shared_ptr<Loop>>() != nullptr;
}

std::shared_ptr<Iterator> iterate(Runtime& runtime, const Value& value) {
  if (const auto* iterator = value.get<std::shared_ptr<Iterator>>()) return *iterator;
  const unsigned depth = value.depth() + 1;
  if (value.list() != nullptr) {
    return make_iterator("list_iterator", depth, [value, i = size_t{0}](Runtime&, Value& out) mutable {
      const auto& items = value.list()->items;
      if (i >= items.size()) return false;
      out = items[i++];
      return true;
    });
  }
  if (value.dict() != nullptr) {
    return make_iterator("dict_keyiterator", depth, [value, i = size_t{0}](Runtime&, Value& out) mutable {
      const auto& entries = value.dict()->entries;
      if (i >= entries.size()) return false;
      out = entries[i++].first;
      return true;
    });
  }
  if (value.is_string()) {
    return make_iterator("str_iterator", depth, [value, position = size_t{0}](Runtime&, Value& out) mutable {
      const String& string = *value.string();
      if (position >= string.text.size()) return false;
      const size_t start = position;
      next_code_point(string.text, position);
      out = Value(string.text.substr(start, position - start), false);
      return true;
    });
  }
  if (const auto* range = value.get<std::shared_ptr<const Range>>()) {
    return make_iterator("range_iterator", depth, [r = **range, i = int64_t{0}](Runtime&, Value& out) mutable {
      if (i >= r.size()) return false;
      out = Value(r.at(i++));
      return true;
    });
  }
  require_defined_if_strict(runtime, value);
  if (value.is_undefined()) return no_items();
  if (value.get<std::shared_ptr<Loop>>() != nullptr) raise_unsupported("iterating over the loop variable is not supported");
  raise("'{}' object is not iterable", value.is_none() ? "NoneType" : type_name(value));
}

std::vector<Value> drain(Runtime& runtime, const Value& value) {
  if (const List* list = value.list()) {
    runtime.step(list->items.size());
    return list->items;
  }
  const std::shared_ptr<Iterator> iterator = iterate(runtime, value);
  std::vector<Value> items;
  for (Value item; iterator->next(runtime, item);) {
    runtime.step();
    items.push_back(std::move(item));
  }
  return items;
}

std::optional<int64_t> length_of(const Value& value) {
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  if (const String* string = value.string()) return static_cast<int64_t>(count_code_points(string->text));
  if (const auto* range = value.get<std::shared_ptr<const Range>>()) return (*range)->size();
  if (value.is_undefined()) return 0;
  return std::nullopt;
}

std::shared_ptr<Iterator> iterate_reversed(Runtime& runtime, const Value& value) {
  const bool reversible = value.is_string() || value.list() != nullptr || value.dict() != nullptr || value.is_undefined() ||
                          value.get<std::shared_ptr<const Range>>() != nullptr;
  if (!reversible) return nullptr;
  std::vector<Value> items = drain(runtime, value);
  std::reverse(items.begin(), items.end());
  const std::string name = value.list() != nullptr ? "list_reverseiterator" : "reversed";
  return make_iterator(name, value.depth() + 1, [items = std::move(items), i = size_t{0}](Runtime&, Value& out) mutable {
    if (i >= items.size()) return false;
    out = items[i++];
    return true;
  });
}

bool Loop::advance(Runtime& runtime) {
  Value item;
  if (ahead) {
    item = std::move(*ahead);
    ahead.reset();
  } else if (const auto kept = items; !kept->next(runtime, item)) {  // which may ask for the loop's length, and so replace `items`
    return false;
  }
  runtime.step();
  ++index0;
  previous = std::move(current);
  current = std::move(item);
  return true;
}

bool Loop::peek(Runtime& runtime) {
  if (ahead) return true;
  Value item;
  if (const auto kept = items; !kept->next(runtime, item)) return false;
  ahead = std::move(item);
  return true;
}

void Loop::end() {
  ended = true;
  items = no_items();
  ahead = current = previous = last_changed = std::nullopt;
  recurse = nullptr;
}

int64_t Loop::count(Runtime& runtime) {
  if (!length) {
    const std::vector<Value> rest = drain(runtime, Value(items));
    length = static_cast<int64_t>(rest.size()) + index0 + 1 + (ahead ? 1 : 0);
    items = iterate(runtime, make_list(rest));
  }
  return *length;
}

std::optional<Value> Loop::attribute(Runtime& runtime, const std::shared_ptr<Loop>& loop, std::string_view name) {
  if (name == "index") return Value(loop->index0 + 1);
  if (name == "index0") return Value(loop->index0);
  if (name == "first") return Value(loop->index0 == 0);
  if (name == "last") return Value(!loop->peek(runtime));
  if (name == "length") return Value(loop->count(runtime));
  if (name == "revindex") return Value(loop->count(runtime) - loop->index0);
  if (name == "revindex0") return Value(loop->count(runtime) - loop->index0 - 1);
  if (name == "depth") return Value(loop->depth0 + 1);
  if (name == "depth0") return Value(loop->depth0);
  if (name == "previtem")
    return loop->index0 == 0 || !loop->previous ? Value::undefined("there is no previous item") : *loop->previous;
  if (name == "nextitem") return loop->peek(runtime) ? *loop->ahead : Value::undefined("there is no next item");
  if (name == "cycle") {
    return make_method("cycle", [loop](Runtime&, const Arguments& arguments) {
      if (!arguments.keyword.empty()) raise("loop.cycle takes no keyword arguments");
      if (arguments.positional.empty()) raise("no items for cycling given");
      return arguments.positional[static_cast<size_t>(loop->index0) % arguments.positional.size()];
    });
  }
  if (name == "changed") {
    return make_method("changed", [loop](Runtime& inner, const Arguments& arguments) {
      if (loop->ended) raise_unsupported("loop.changed() of a loop that has ended is not supported");
      Value now = make_list(arguments.positional, List::Kind::kTuple);
      if (loop->last_changed && is_equal(inner, *loop->last_changed, now)) return Value(false);
      loop->last_changed = std::move(now);
      return Value(true);
    });
  }
  return std::nullopt;
}

}  // namespace salient::models::jinja
