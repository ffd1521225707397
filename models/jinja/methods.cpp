#include "models/jinja/methods.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "models/jinja/arguments.h"
#include "models/jinja/format.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/string_methods.h"

namespace salient::models::jinja {

namespace {

Value bind_method(const Method& method, const Value& self) {
  const auto invoke = [&method, self](Runtime& runtime, const Arguments& arguments) {
    if (const String* text = self.string()) runtime.read(text->text.size());
    if (method.raw != nullptr) return runtime.produced(method.raw(runtime, self, arguments), self);
    return runtime.produced(method.call(runtime, self, Bound(arguments, method.name, method.parameters)), self);
  };
  return Value(
      std::make_shared<const Function>(Function{std::string(method.name), invoke, false, checked_depth(self.depth() + 1)}));
}

std::optional<Value> find_in(std::span<const Method> table, const Value& self, std::string_view name) {
  const auto method = std::find_if(table.begin(), table.end(), [&](const Method& one) { return one.name == name; });
  return method == table.end() ? std::nullopt : std::optional<Value>(bind_method(*method, self));
}

template <typename Pick>
Value view(Runtime& runtime, const Value& self, List::Kind kind, Pick pick) {
  runtime.step(self.dict()->entries.size());
  std::vector<Value> items;
  for (const auto& entry : self.dict()->entries) items.push_back(pick(entry));
  return make_list(std::move(items), kind);
}

Value dict_get(Runtime& runtime, const Value& self, const Bound& arguments) {
  const Value* found = self.dict()->find(runtime, *arguments[0]);
  if (found != nullptr) return *found;
  return arguments[1] == nullptr ? Value() : *arguments[1];
}

constexpr Method kDictMethods[] = {
    {"get", "key/ default/=", dict_get},
    {"items", "",
     [](Runtime& runtime, const Value& self, const Bound&) {
       return view(runtime, self, List::Kind::kItems, [](const auto& entry) {
         return make_list({entry.first, entry.second}, List::Kind::kTuple);
       });
     }},
    {"keys", "",
     [](Runtime& runtime, const Value& self, const Bound&) {
       return view(runtime, self, List::Kind::kKeys, [](const auto& entry) { return entry.first; });
     }},
    {"values", "",
     [](Runtime& runtime, const Value& self, const Bound&) {
       return view(runtime, self, List::Kind::kValues, [](const auto& entry) { return entry.second; });
     }},
    {"copy", "", [](Runtime&, const Value& self, const Bound&) { return self; }},
};
constexpr std::string_view kUnsafeDictMethods[] = {"clear", "pop", "popitem", "setdefault", "update"};

Value list_index(Runtime& runtime, const Value& self, const Bound& arguments) {
  const auto& items = self.list()->items;
  const auto size = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t slot, int64_t fallback) {
    const int64_t position = arguments.integer(slot, "an index bound", fallback);
    return std::clamp(position < 0 ? position + size : position, int64_t{0}, size);
  };
  for (int64_t i = bound(1, 0), stop = bound(2, size); i < stop; ++i) {
    if (is_equal(runtime, items[static_cast<size_t>(i)], *arguments[0])) return i;
  }
  raise("{} is not in the {}", to_repr(runtime, *arguments[0]), type_name(self));
}

Value list_count(Runtime& runtime, const Value& self, const Bound& arguments) {
  const auto& items = self.list()->items;
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return is_equal(runtime, item, *arguments[0]); }));
}

constexpr Method kListMethods[] = {
    {"index", "value/ start/= stop/=", list_index},
    {"count", "value/", list_count},
    {"copy", "", [](Runtime&, const Value& self, const Bound&) { return self; }},
};
constexpr std::string_view kUnsafeListMethods[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};

Value cycler_next(Runtime&, const Value& self, const Bound&) {
  Cycler& cycler = **self.get<std::shared_ptr<Cycler>>();
  const Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return item;
}

constexpr Method kCyclerMethods[] = {
    {"next", "", cycler_next},
    {"reset", "",
     [](Runtime&, const Value& self, const Bound&) {
       (*self.get<std::shared_ptr<Cycler>>())->position = 0;
       return Value();
     }},
};

// The sandbox hides methods that change their object; using the result is an error.
std::optional<Value> hide(std::span<const std::string_view> names, const Value& self, std::string_view name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) return std::nullopt;
  return Value::undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(self)));
}

}  // namespace

std::optional<Value> find_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_string()) return find_in(string_methods(), object, name);
  if (object.dict() != nullptr) {
    if (auto hidden = hide(kUnsafeDictMethods, object, name)) return hidden;
    return find_in(kDictMethods, object, name);
  }
  if (const List* list = object.list()) {
    if (list->is_view()) return std::nullopt;
    if (list->kind == List::Kind::kGroup && name == "grouper") return list->items[0];
    if (list->kind == List::Kind::kGroup && name == "list") return list->items[1];
    if (list->is_tuple()) return name == "copy" ? std::nullopt : find_in(kListMethods, object, name);
    if (auto hidden = hide(kUnsafeListMethods, object, name)) return hidden;
    return find_in(kListMethods, object, name);
  }
  if (const auto* names = object.get<std::shared_ptr<Namespace>>()) {
    const Value* found = (*names)->attributes.find(name);
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (const auto* loop = object.get<std::shared_ptr<Loop>>()) return Loop::attribute(runtime, *loop, name);
  if (const auto* cycler = object.get<std::shared_ptr<Cycler>>()) {
    if (name == "current") return (*cycler)->items[(*cycler)->position];
    return find_in(kCyclerMethods, object, name);
  }
  if (const auto* range = object.get<std::shared_ptr<const Range>>()) {
    if (name == "start") return Value((*range)->start);
    if (name == "stop") return Value((*range)->stop);
    if (name == "step") return Value((*range)->step);
  }
  if (const auto* function = object.get<std::shared_ptr<const Function>>();
      function != nullptr && (*function)->macro && name == "name") {
    return Value((*function)->name);
  }
  return std::nullopt;
}

}  // namespace salient::models::jinja
