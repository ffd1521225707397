// Jinja2's filters: `value | name(arguments)`.
#pragma once

#include <span>
#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

struct Filter {
  std::string_view name;
  std::string_view parameters;  // as Bound reads them
  Value (*call)(Runtime& runtime, const Value& subject, const Bound& arguments) = nullptr;
  Value (*raw)(Runtime& runtime, const Value& subject,
               const Arguments& arguments) = nullptr;  // instead of `call`: takes any arguments
};

bool is_filter(std::string_view name);
// Errors: unsupported for an unknown name; what the filter itself raises.
Value apply_filter(Runtime& runtime, std::string_view name, const Value& subject, const Arguments& arguments);

// The tables behind these, by what the filters work on.
std::span<const Filter> text_filters();
std::span<const Filter> sequence_filters();
std::span<const Filter> number_filters();

}  // namespace salient::models::jinja
