// Filters over lists, dicts and iterators. Those that Jinja2 writes as generators return iterators: lazy, and good for one pass.
#include <algorithm>
#include <string>
#include <vector>

#include "models/jinja/filters.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"
#include "models/jinja/tests.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

Value generator(const std::shared_ptr<Iterator>& source, unsigned depth, std::function<bool(Runtime&, Value&)> next) {
  return Value(make_iterator("generator", std::max(source->depth, depth) + 1, std::move(next)));
}

// The path of an attribute argument: "a.b.0" is a, then b, then element 0; an int is an element; None is the item itself.
std::vector<Value> attribute_path(const Value* attribute) {
  std::vector<Value> path;
  if (attribute == nullptr || attribute->is_none()) return path;
  if (!attribute->is_string()) return {*attribute};
  const std::string_view text = attribute->string()->text;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find('.', start), text.size());
    const std::string_view part = text.substr(start, end - start);
    const bool number = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string_view::npos;
    path.push_back(number ? Value(static_cast<int64_t>(std::stoll(std::string(part)))) : Value(part));
    start = end + 1;
  }
  return path;
}

Value follow(Runtime& runtime, Value item, const std::vector<Value>& path, const Value* fallback = nullptr) {
  for (const Value& part : path) {
    item = get_item(runtime, item, part);
    if (fallback != nullptr && !fallback->is_none() && item.is_undefined()) item = *fallback;
  }
  return item;
}

Value fold_case(const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return Value(to_lower(value.string()->text));
}

// sorted(items, key=...): stable, also when reversed.
std::vector<Value> sort_by(Runtime& runtime, std::vector<Value> items, const std::function<Value(const Value&)>& key,
                           bool reverse) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key(item), std::move(item));
  // std::stable_sort needs a consistent order, which values with NaN or mixed kinds do not have; merging by hand never reads
  // outside.
  const auto less = [&](const auto& a, const auto& b) {
    return reverse ? is_less(runtime, b.first, a.first) : is_less(runtime, a.first, b.first);
  };
  std::vector<std::pair<Value, Value>> merged(keyed.size());
  for (size_t width = 1; width < keyed.size(); width *= 2) {
    for (size_t start = 0; start < keyed.size(); start += 2 * width) {
      size_t left = start, right = std::min(start + width, keyed.size());
      const size_t middle = right, end = std::min(start + 2 * width, keyed.size());
      for (size_t out = start; out < end; ++out) {
        const bool take_right = left >= middle || (right < end && less(keyed[right], keyed[left]));
        merged[out] = std::move(keyed[take_right ? right++ : left++]);
      }
    }
    keyed.swap(merged);
  }
  std::vector<Value> sorted;
  for (auto& entry : keyed) sorted.push_back(std::move(entry.second));
  return sorted;
}

Value filter_length(Runtime& runtime, const Value& subject, const Bound&) {
  require_defined_if_strict(runtime, subject);
  if (const auto* loop = subject.get<std::shared_ptr<Loop>>(); loop != nullptr)
    raise_unsupported("the length of the loop variable is loop.length");
  const auto length = length_of(subject);
  if (!length) raise("object of type '{}' has no len()", subject.is_none() ? "NoneType" : type_name(subject));
  return *length;
}

Value filter_first(Runtime& runtime, const Value& subject, const Bound&) {
  Value item;
  if (iterate(runtime, subject)->next(runtime, item)) return item;
  return Value::undefined("No first item, sequence was empty.");
}

Value filter_last(Runtime& runtime, const Value& subject, const Bound&) {
  const std::shared_ptr<Iterator> reversed = iterate_reversed(runtime, subject);
  if (reversed == nullptr) raise("'{}' object is not reversible", type_name(subject));
  Value item;
  if (reversed->next(runtime, item)) return item;
  return Value::undefined("No last item, sequence was empty.");
}

Value filter_reverse(Runtime& runtime, const Value& subject, const Bound&) {
  if (subject.is_string()) return get_slice(runtime, subject, {}, {}, Value(int64_t{-1}));
  if (std::shared_ptr<Iterator> reversed = iterate_reversed(runtime, subject)) return Value(reversed);
  std::vector<Value> items = drain(runtime, subject);
  std::reverse(items.begin(), items.end());
  return make_list(std::move(items));
}

Value filter_join(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const std::string separator = arguments[0] == nullptr ? "" : to_text(runtime, *arguments[0]);
  const std::vector<Value> path = attribute_path(arguments[1]);
  const std::shared_ptr<Iterator> items = iterate(runtime, subject);
  std::string out;
  bool first = true;
  for (Value item; items->next(runtime, item); first = false) {
    runtime.step();
    runtime.produce(separator.size());
    if (!first) out += separator;
    out += to_text(runtime, follow(runtime, item, path));
  }
  return Value(std::move(out));
}

Value filter_items(Runtime&, const Value& subject, const Bound&) {
  if (subject.is_undefined()) return Value(no_items());
  if (subject.dict() == nullptr) {  // a generator in Jinja2: the error comes with the first item
    return Value(make_iterator("generator", 1, [](Runtime&, Value&) -> bool { raise("Can only get item pairs from a mapping."); }));
  }
  return Value(make_iterator("generator", 1, [subject, i = size_t{0}](Runtime&, Value& out) mutable {
    const auto& entries = subject.dict()->entries;
    if (i >= entries.size()) return false;
    out = make_list({entries[i].first, entries[i].second}, List::Kind::kTuple);
    ++i;
    return true;
  }));
}

Value filter_dictsort(Runtime& runtime, const Value& subject, const Bound& arguments) {
  require_defined(subject);
  const bool case_sensitive = arguments.flag(0, false);
  const std::string by = arguments[1] == nullptr ? "key" : to_text(runtime, *arguments[1]);
  if (by != "key" && by != "value") raise("you can only sort by either \"key\" or \"value\"");
  if (subject.dict() == nullptr) raise("'{}' object has no attribute 'items'", type_name(subject));
  std::vector<Value> pairs;
  for (const auto& [key, value] : subject.dict()->entries) pairs.push_back(make_list({key, value}, List::Kind::kTuple));
  const auto key = [&](const Value& pair) { return fold_case(pair.list()->items[by == "key" ? 0 : 1], case_sensitive); };
  return make_list(sort_by(runtime, std::move(pairs), key, arguments.flag(2, false)));
}

Value filter_sort(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const bool case_sensitive = arguments.flag(1, false);
  std::vector<std::vector<Value>> paths;
  if (arguments[2] != nullptr && arguments[2]->is_string()) {  // several attributes, separated by commas
    const std::string_view text = arguments[2]->string()->text;
    for (size_t start = 0; start <= text.size();) {
      const size_t end = std::min(text.find(',', start), text.size());
      const Value part(text.substr(start, end - start));
      paths.push_back(attribute_path(&part));
      start = end + 1;
    }
  } else {
    paths.push_back(attribute_path(arguments[2]));
  }
  const auto key = [&](const Value& item) {
    std::vector<Value> parts;
    for (const auto& path : paths) parts.push_back(fold_case(follow(runtime, item, path), case_sensitive));
    return make_list(std::move(parts));
  };
  return make_list(sort_by(runtime, drain(runtime, subject), key, arguments.flag(0, false)));
}

Value filter_unique(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const auto source = iterate(runtime, subject);
  return generator(source, subject.depth(),
                   [source, seen = Dict(), case_sensitive = arguments.flag(0, false), path = attribute_path(arguments[1])](
                       Runtime& inner, Value& out) mutable {
                     while (source->next(inner, out)) {
                       inner.step();
                       const Value key = fold_case(follow(inner, out, path), case_sensitive);
                       if (seen.find(inner, key) != nullptr) continue;
                       seen.set(inner, key, Value());
                       return true;
                     }
                     return false;
                   });
}

template <bool largest>
Value filter_extreme(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const std::vector<Value> path = attribute_path(arguments[1]);
  const auto key = [&](const Value& item) { return fold_case(follow(runtime, item, path), arguments.flag(0, false)); };
  const std::vector<Value> items = drain(runtime, subject);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    const Value now = key(items[i]), so_far = key(items[best]);
    if (largest ? is_less(runtime, so_far, now, ">") : is_less(runtime, now, so_far)) best = i;
  }
  return items[best];
}

Value filter_sum(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const std::vector<Value> path = attribute_path(arguments[0]);
  Value total = arguments[1] == nullptr ? Value(int64_t{0}) : *arguments[1];
  if (total.is_string()) raise("sum() can't sum strings");
  const auto items = iterate(runtime, subject);
  for (Value item; items->next(runtime, item);) {
    runtime.step();
    total = apply(runtime, BinaryOperator::kAdd, total, follow(runtime, item, path));
  }
  return total;
}

Value filter_batch(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const int64_t size = require_integer(*arguments[0], "the size");
  const Value fill = arguments[1] == nullptr ? Value() : *arguments[1];
  const auto source = iterate(runtime, subject);
  return generator(source, std::max(subject.depth(), fill.depth()),
                   [source, size, fill, pending = std::optional<Value>(), done = false](Runtime& inner, Value& out) mutable {
                     if (done) return false;
                     std::vector<Value> batch;
                     if (pending) batch.push_back(*std::exchange(pending, std::nullopt));
                     Value item;
                     for (;;) {
                       if (!source->next(inner, item)) {
                         done = true;
                         break;
                       }
                       inner.step();
                       if (static_cast<int64_t>(batch.size()) == size) {
                         pending = item;
                         out = make_list(std::move(batch));
                         return true;
                       }
                       batch.push_back(item);
                     }
                     if (batch.empty()) return false;
                     while (!fill.is_none() && static_cast<int64_t>(batch.size()) < size) {
                       inner.step();
                       batch.push_back(fill);
                     }
                     out = make_list(std::move(batch));
                     return true;
                   });
}

Value filter_slice(Runtime&, const Value& subject, const Bound& arguments) {
  const int64_t slices = require_integer(*arguments[0], "the number of slices");
  const Value fill = arguments[1] == nullptr ? Value() : *arguments[1];
  return Value(make_iterator("generator", std::max(subject.depth(), fill.depth()) + 1,
                             [subject, items = std::optional<std::vector<Value>>(), slices, fill, number = int64_t{0}](
                                 Runtime& inner, Value& out) mutable {
                               if (!items) {
                                 items = drain(inner, subject);
                                 if (slices == 0) raise("integer division or modulo by zero");
                               }
                               if (number >= slices) return false;
                               inner.step();
                               const auto size = static_cast<int64_t>(items->size());
                               const int64_t each = size / slices, extra = size % slices;
                               const int64_t start = number * each + std::min(number, extra),
                                             end = start + each + (number < extra ? 1 : 0);
                               std::vector<Value> slice(items->begin() + start, items->begin() + end);
                               if (!fill.is_none() && number >= extra) slice.push_back(fill);
                               ++number;
                               out = make_list(std::move(slice));
                               return true;
                             }));
}

Value filter_groupby(Runtime& runtime, const Value& subject, const Bound& arguments) {
  const std::vector<Value> path = attribute_path(arguments[0]);
  const bool case_sensitive = arguments.flag(2, false);
  const auto exact = [&](const Value& item) { return follow(runtime, item, path, arguments[1]); };
  const auto key = [&](const Value& item) { return fold_case(exact(item), case_sensitive); };
  const std::vector<Value> items = sort_by(runtime, drain(runtime, subject), key, false);
  std::vector<Value> groups;
  for (size_t i = 0; i < items.size();) {
    const size_t first = i;
    std::vector<Value> group{items[i++]};  // in any case: a key need not be equal to itself
    while (i < items.size() && is_equal(runtime, key(items[first]), key(items[i]))) group.push_back(items[i++]);
    groups.push_back(make_list({exact(items[first]), make_list(std::move(group))}, List::Kind::kGroup));
  }
  return make_list(std::move(groups));
}

Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest{{arguments.positional.begin() + static_cast<std::ptrdiff_t>(count), arguments.positional.end()},
                 arguments.keyword};
  return rest;
}

Value filter_map(Runtime& runtime, const Value& subject, const Arguments& arguments) {
  if (!is_true(runtime, subject)) return Value(no_items());
  const auto keyword = [&](std::string_view name) -> const Value* {
    for (const auto& [key, value] : arguments.keyword) {
      if (key == name) return &value;
    }
    return nullptr;
  };
  // A generator in Jinja2: what is wrong with the arguments or the subject shows with the first item.
  if (arguments.positional.empty() && keyword("attribute") != nullptr) {
    const Value fallback = keyword("default") == nullptr ? Value() : *keyword("default");
    const bool surplus = arguments.keyword.size() > (keyword("default") == nullptr ? 1u : 2u);
    return Value(make_iterator("generator", std::max(subject.depth(), max_depth(arguments)) + 1,
                               [subject, source = std::shared_ptr<Iterator>(), path = attribute_path(keyword("attribute")),
                                fallback, surplus](Runtime& inner, Value& out) mutable {
                                 if (surplus) raise("unexpected keyword argument to map(attribute=...)");
                                 if (source == nullptr) source = iterate(inner, subject);
                                 if (!source->next(inner, out)) return false;
                                 inner.step();
                                 out = follow(inner, out, path, &fallback);
                                 return true;
                               }));
  }
  return Value(make_iterator("generator", std::max(subject.depth(), max_depth(arguments)) + 1,
                             [subject, arguments, source = std::shared_ptr<Iterator>()](Runtime& inner, Value& out) mutable {
                               if (arguments.positional.empty()) raise("map requires a filter argument");
                               if (source == nullptr) source = iterate(inner, subject);
                               if (!source->next(inner, out)) return false;
                               inner.step();
                               out = apply_filter(inner, to_text(inner, arguments.positional[0]), out, without_first(arguments, 1));
                               return true;
                             }));
}

// select, reject, selectattr and rejectattr.
template <bool wanted, bool by_attribute>
Value filter_select(Runtime& runtime, const Value& subject, const Arguments& arguments) {
  if (!is_true(runtime, subject)) return Value(no_items());
  return Value(make_iterator("generator", std::max(subject.depth(), max_depth(arguments)) + 1,
                             [subject, arguments, source = std::shared_ptr<Iterator>()](Runtime& inner, Value& out) mutable {
                               constexpr size_t kTest = by_attribute ? 1 : 0;  // where the name of the test stands
                               if (by_attribute && arguments.positional.empty()) raise("missing parameter for attribute name");
                               if (source == nullptr) source = iterate(inner, subject);
                               while (source->next(inner, out)) {
                                 inner.step();
                                 const Value tested =
                                     by_attribute ? follow(inner, out, attribute_path(&arguments.positional[0])) : out;
                                 const bool passed = arguments.positional.size() > kTest
                                                         ? apply_test(inner, to_text(inner, arguments.positional[kTest]), tested,
                                                                      without_first(arguments, kTest + 1))
                                                         : is_true(inner, tested);
                                 if (passed == wanted) return true;
                               }
                               return false;
                             }));
}

constexpr Filter kSequenceFilters[] = {
    {"length", "", filter_length},
    {"count", "", filter_length},
    {"first", "", filter_first},
    {"last", "", filter_last},
    {"reverse", "", filter_reverse},
    {"list", "", [](Runtime& runtime, const Value& subject, const Bound&) { return make_list(drain(runtime, subject)); }},
    {"join", "d= attribute=", filter_join},
    {"items", "", filter_items},
    {"dictsort", "case_sensitive= by= reverse=", filter_dictsort},
    {"sort", "reverse= case_sensitive= attribute=", filter_sort},
    {"unique", "case_sensitive= attribute=", filter_unique},
    {"min", "case_sensitive= attribute=", filter_extreme<false>},
    {"max", "case_sensitive= attribute=", filter_extreme<true>},
    {"sum", "attribute= start=", filter_sum},
    {"batch", "linecount fill_with=", filter_batch},
    {"slice", "slices fill_with=", filter_slice},
    {"groupby", "attribute default= case_sensitive=", filter_groupby},
    {"map", "", nullptr, filter_map},
    {"select", "", nullptr, filter_select<true, false>},
    {"reject", "", nullptr, filter_select<false, false>},
    {"selectattr", "", nullptr, filter_select<true, true>},
    {"rejectattr", "", nullptr, filter_select<false, true>},
};

}  // namespace

std::span<const Filter> sequence_filters() { return kSequenceFilters; }

}  // namespace salient::models::jinja
