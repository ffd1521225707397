// Binding of call arguments to the parameters of built-in filters, tests, methods and functions.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "models/jinja/value.h"

namespace salient::models::jinja {

// Arguments by parameter; null pointers where none was given. Point into the Arguments they were bound from.
class Bound {
 public:
  // `parameters`: names separated by blanks, as in "old new count=". From the first that ends in "=" on they are optional.
  // A name that ends in "/" cannot be given by keyword: "sep/=". Errors: as Python's TypeError.
  Bound(const Arguments& arguments, std::string_view function, std::string_view parameters);

  const Value* operator[](size_t index) const { return values_[index]; }
  // The value or a fallback.
  bool flag(size_t index, bool fallback) const;
  int64_t integer(size_t index, std::string_view what, int64_t fallback) const;
  // None counts as missing.
  const Value* unless_none(size_t index) const;

 private:
  std::vector<const Value*> values_;
};

}  // namespace salient::models::jinja
