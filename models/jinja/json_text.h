// JSON in and out of template values: messages and tools in, the tojson filter out.
#pragma once

#include <optional>
#include <string>

#include "common/json.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

// Python's json.dumps() arguments.
struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // the text of one level; nullopt: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Errors: a value that JSON cannot hold (undefined, iterators, namespaces, functions).
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

// Errors: unsupported for integers over 64 bits and for nesting over 400 levels (an Error, ready for its context).
Value from_json(const OrderedJson& json);

}  // namespace salient::models::jinja
