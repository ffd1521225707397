// Methods and attributes of template values: str, dict, list, tuple, namespaces, the loop variable.
#pragma once

#include <optional>
#include <string_view>

#include "models/jinja/value.h"

namespace salient::models::jinja {

// Python's getattr(object, name) as the sandbox allows it: methods that change a list or dict are there but undefined ("is
// unsafe"). nullopt where Python raises AttributeError.
std::optional<Value> find_attribute(Runtime& runtime, const Value& object, std::string_view name);

}  // namespace salient::models::jinja
