// Names of Unicode properties in Oniguruma and their PCRE2 equivalents.
#pragma once

#include <string_view>

namespace salient::models {

// A name of \p{...} or [:...:] that PCRE2 lacks or reads differently. `body` is what to write between the brackets of a class,
// complemented if `negated`.
struct Property {
  std::string_view name;  // lower case, without '_', '-' and spaces
  std::string_view body;
  bool negated = false;
};

// Null when PCRE2 knows the name as it is. Names are compared without case, spaces, '-' and '_'.
const Property* find_property(std::string_view name);

// Whether the name, unknown to find_property, is a script's: in Oniguruma the script itself, in PCRE2 the script extensions too
// unless one writes "sc:" before it.
bool is_script(std::string_view name);

}  // namespace salient::models
