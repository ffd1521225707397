#include "models/text/metaspace.h"

#include <string>

#include "common/error.h"
#include "models/text/text_pattern.h"

namespace salient::models {

Metaspace Metaspace::from_json(const Json& part, std::string_view where) {
  Metaspace metaspace;
  metaspace.replacement = require_character(part, "replacement", where);
  const auto scheme = value_or<std::string>(part, "prepend_scheme", "always", where);
  if (scheme == "always") {
    metaspace.prepend = PrependScheme::kAlways;
  } else if (scheme == "first") {
    metaspace.prepend = PrependScheme::kFirst;
  } else if (scheme == "never") {
    metaspace.prepend = PrependScheme::kNever;
  } else {
    fail(ErrorKind::kCorruption, "{}: key 'prepend_scheme': found '{}', expected 'always', 'first' or 'never'", where, scheme);
  }
  if (!value_or<bool>(part, "add_prefix_space", true, where)) {
    if (metaspace.prepend != PrependScheme::kNever) {
      fail(ErrorKind::kCorruption, "{}: add_prefix_space false contradicts prepend_scheme '{}'; the scheme must be 'never'", where,
           scheme);
    }
  }
  metaspace.split = value_or<bool>(part, "split", true, where);
  return metaspace;
}

}  // namespace salient::models
