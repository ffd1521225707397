#include "models/jinja/tests.h"

#include <string>

#include "models/jinja/arguments.h"
#include "models/jinja/filters.h"
#include "models/jinja/iteration.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"

namespace salient::models::jinja {

namespace {

struct Test {
  std::string_view name;
  std::string_view parameters;  // as Bound reads them
  bool (*call)(Runtime& runtime, const Value& subject, const Bound& arguments);
};

bool has_remainder(Runtime& runtime, const Value& subject, const Value& divisor, int64_t remainder) {
  return is_equal(runtime, apply(runtime, BinaryOperator::kModulo, subject, divisor), Value(remainder));
}

template <CompareOperator symbol>
bool test_compare(Runtime& runtime, const Value& subject, const Bound& arguments) {
  return compare(runtime, symbol, subject, *arguments[0]);
}

bool test_sequence(Runtime& runtime, const Value& value, const Bound&) {
  if (value.is_undefined()) return !runtime.options.strict_undefined || value.get<Undefined>()->lenient;
  return value.is_string() || value.dict() != nullptr || (value.list() != nullptr && !value.list()->is_view()) ||
         value.get<std::shared_ptr<const Range>>() != nullptr;
}

bool test_callable(Runtime&, const Value& value, const Bound&) {
  return value.is_undefined() || value.get<std::shared_ptr<const Function>>() != nullptr ||
         value.get<std::shared_ptr<Loop>>() != nullptr;
}

bool is_boolean(const Value& value, bool truth) {
  const bool* found = value.get<bool>();
  return found != nullptr && *found == truth;
}

// Python's `is`: certain for None, booleans and shared objects. Equal numbers and strings count as one object, as small ones are in
// Python.
bool test_sameas(Runtime& runtime, const Value& value, const Bound& arguments) {
  const Value& other = *arguments[0];
  if (value.data().index() != other.data().index() || value.is_undefined()) return false;
  if (value.list() != nullptr) return value.list() == other.list();
  if (value.dict() != nullptr) return value.dict() == other.dict();
  return is_equal(runtime, value, other);
}

bool test_case(Runtime& runtime, const Value& value, std::string_view method) {
  const Value text(to_text(runtime, value));
  return is_true(call(runtime, *find_attribute(runtime, text, method), {}));
}

constexpr Test kTests[] = {
    {"defined", "", [](Runtime&, const Value& value, const Bound&) { return !value.is_undefined(); }},
    {"undefined", "", [](Runtime&, const Value& value, const Bound&) { return value.is_undefined(); }},
    {"none", "", [](Runtime&, const Value& value, const Bound&) { return value.is_none(); }},
    {"boolean", "", [](Runtime&, const Value& value, const Bound&) { return value.get<bool>() != nullptr; }},
    {"true", "", [](Runtime&, const Value& value, const Bound&) { return is_boolean(value, true); }},
    {"false", "", [](Runtime&, const Value& value, const Bound&) { return is_boolean(value, false); }},
    {"integer", "", [](Runtime&, const Value& value, const Bound&) { return value.get<int64_t>() != nullptr; }},
    {"float", "", [](Runtime&, const Value& value, const Bound&) { return value.get<double>() != nullptr; }},
    {"number", "", [](Runtime&, const Value& value, const Bound&) { return value.is_number(); }},
    {"string", "", [](Runtime&, const Value& value, const Bound&) { return value.is_string(); }},
    {"mapping", "", [](Runtime&, const Value& value, const Bound&) { return value.dict() != nullptr; }},
    {"sequence", "", test_sequence},
    {"iterable", "", [](Runtime& runtime, const Value& value, const Bound&) { return is_iterable(runtime, value); }},
    {"callable", "", test_callable},
    {"escaped", "", [](Runtime&, const Value& value, const Bound&) { return value.is_string() && value.string()->markup; }},
    {"sameas", "other", test_sameas},
    {"odd", "",
     [](Runtime& runtime, const Value& value, const Bound&) { return has_remainder(runtime, value, Value(int64_t{2}), 1); }},
    {"even", "",
     [](Runtime& runtime, const Value& value, const Bound&) { return has_remainder(runtime, value, Value(int64_t{2}), 0); }},
    {"divisibleby", "num",
     [](Runtime& runtime, const Value& value, const Bound& arguments) { return has_remainder(runtime, value, *arguments[0], 0); }},
    {"lower", "", [](Runtime& runtime, const Value& value, const Bound&) { return test_case(runtime, value, "islower"); }},
    {"upper", "", [](Runtime& runtime, const Value& value, const Bound&) { return test_case(runtime, value, "isupper"); }},
    {"in", "seq",
     [](Runtime& runtime, const Value& value, const Bound& arguments) { return contains(runtime, *arguments[0], value); }},
    {"filter", "", [](Runtime&, const Value& value, const Bound&) { return value.is_string() && is_filter(value.string()->text); }},
    {"test", "", [](Runtime&, const Value& value, const Bound&) { return value.is_string() && is_test(value.string()->text); }},
    {"==", "other/", test_compare<CompareOperator::kEqual>},
    {"eq", "other/", test_compare<CompareOperator::kEqual>},
    {"equalto", "other/", test_compare<CompareOperator::kEqual>},
    {"!=", "other/", test_compare<CompareOperator::kNotEqual>},
    {"ne", "other/", test_compare<CompareOperator::kNotEqual>},
    {"<", "other/", test_compare<CompareOperator::kLess>},
    {"lt", "other/", test_compare<CompareOperator::kLess>},
    {"lessthan", "other/", test_compare<CompareOperator::kLess>},
    {"<=", "other/", test_compare<CompareOperator::kLessEqual>},
    {"le", "other/", test_compare<CompareOperator::kLessEqual>},
    {">", "other/", test_compare<CompareOperator::kGreater>},
    {"gt", "other/", test_compare<CompareOperator::kGreater>},
    {"greaterthan", "other/", test_compare<CompareOperator::kGreater>},
    {">=", "other/", test_compare<CompareOperator::kGreaterEqual>},
    {"ge", "other/", test_compare<CompareOperator::kGreaterEqual>},
};

const Test* find_test(std::string_view name) {
  for (const Test& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

}  // namespace

bool is_test(std::string_view name) { return find_test(name) != nullptr; }

bool apply_test(Runtime& runtime, std::string_view name, const Value& subject, const Arguments& arguments) {
  const Test* test = find_test(name);
  if (test == nullptr) raise_unsupported("the test '{}' is unknown", name);
  return test->call(runtime, subject, Bound(arguments, test->name, test->parameters));
}

}  // namespace salient::models::jinja
