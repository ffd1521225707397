// Python's iteration protocol over template values, and the `loop` variable.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "models/jinja/value.h"

namespace salient::models::jinja {

// Errors: an undefined value of a strict template.
bool is_iterable(Runtime& runtime, const Value& value);
// iter(value): list and tuple items, dict keys, characters, ranges; an iterator is returned as it is. Errors: not iterable; an
// undefined value of a strict template, else it has no items.
std::shared_ptr<Iterator> iterate(Runtime& runtime, const Value& value);
// list(value).
std::vector<Value> drain(Runtime& runtime, const Value& value);
// len(value), where it has one.
std::optional<int64_t> length_of(const Value& value);
// reversed(value) as an iterator, where it can be reversed; null otherwise.
std::shared_ptr<Iterator> iterate_reversed(Runtime& runtime, const Value& value);
// Over nothing.
std::shared_ptr<Iterator> no_items();
std::shared_ptr<Iterator> make_iterator(std::string name, unsigned depth, std::function<bool(Runtime&, Value&)> next);

// The state of a for statement; like Jinja2's it reads one item ahead only when asked.
struct Loop {
  std::shared_ptr<Iterator> items;
  std::optional<int64_t> length;
  std::optional<Value> ahead, current, previous, last_changed;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool ended = false;
  std::function<Value(Runtime&, const Value& iterable, int64_t depth)> recurse;  // empty unless the loop is marked recursive

  // Moves on; false at the end.
  bool advance(Runtime& runtime);
  // A template may keep the loop: lets go of what it holds, so that such loops do not hold each other.
  void end();
  // loop.<name>; nullopt when there is no such attribute.
  static std::optional<Value> attribute(Runtime& runtime, const std::shared_ptr<Loop>& loop, std::string_view name);

 private:
  bool peek(Runtime& runtime);
  int64_t count(Runtime& runtime);
};

}  // namespace salient::models::jinja
