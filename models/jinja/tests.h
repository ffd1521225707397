// Jinja2's tests: `value is name(arguments)`.
#pragma once

#include <string_view>

#include "models/jinja/value.h"

namespace salient::models::jinja {

bool is_test(std::string_view name);
// Errors: unsupported for an unknown name; what the test itself raises.
bool apply_test(Runtime& runtime, std::string_view name, const Value& subject, const Arguments& arguments);

}  // namespace salient::models::jinja
