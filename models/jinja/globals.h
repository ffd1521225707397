// The functions that every template can call.
#pragma once

#include <string_view>

#include "models/jinja/value.h"

namespace salient::models::jinja {

// raise_exception, strftime_now, range, dict, namespace, cycler, joiner; undefined when there is no global of that name.
Value find_global(std::string_view name);

}  // namespace salient::models::jinja
