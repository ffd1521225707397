// Python's operators, subscripts and calls on template values, with Jinja2's rules for attributes and items.
//
// All raise errors where Python raises TypeError, ZeroDivisionError and the like, and where an undefined value is used as a value.
#pragma once

#include <string_view>

#include "models/jinja/ast.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

Value apply(Runtime& runtime, BinaryOperator symbol, const Value& left, const Value& right);
Value apply(Runtime& runtime, UnaryOperator symbol, const Value& operand);
bool compare(Runtime& runtime, CompareOperator symbol, const Value& left, const Value& right);
// item in container.
bool contains(Runtime& runtime, const Value& container, const Value& item);

// object.name: a method or attribute, else object["name"], else undefined.
Value get_attribute(Runtime& runtime, const Value& object, std::string_view name);
// object[key], else for a string key the attribute of that name, else undefined.
Value get_item(Runtime& runtime, const Value& object, const Value& key);
// object[start:stop:step]; None leaves a bound open.
Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

Value call(Runtime& runtime, const Value& callee, const Arguments& arguments);

// An int argument called `what`. Errors: another kind.
int64_t require_integer(const Value& value, std::string_view what);

}  // namespace salient::models::jinja
