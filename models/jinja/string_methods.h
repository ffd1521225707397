// The methods of Python's str that templates can call.
#pragma once

#include <span>
#include <string_view>

#include "models/jinja/arguments.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

struct Method {
  std::string_view name;
  std::string_view parameters;  // as Bound reads them
  Value (*call)(Runtime& runtime, const Value& self, const Bound& arguments) = nullptr;
  Value (*raw)(Runtime& runtime, const Value& self,
               const Arguments& arguments) = nullptr;  // instead of `call`: takes any arguments
};

std::span<const Method> string_methods();

// Parts that filters use too.
std::string center(Runtime& runtime, std::string_view text, int64_t width, std::string_view fill);
std::string replace(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to, int64_t count);

}  // namespace salient::models::jinja
