// Python's two string formatting languages: "%s" % value and "{}".format(value).
#pragma once

#include <string>
#include <string_view>

#include "models/jinja/value.h"

namespace salient::models::jinja {

// text % values, where `values` is a tuple, a dict for %(name)s, or one value. A markup text escapes what is put in.
Value format_percent(Runtime& runtime, const String& text, const Value& values);

// text.format(...).
std::string format_braces(Runtime& runtime, std::string_view text, const Arguments& arguments);

// format(value, specification): [[fill]align][sign][#][0][width][,][.precision][type] for str, int and float.
std::string format_value(Runtime& runtime, const Value& value, std::string_view specification);

}  // namespace salient::models::jinja
