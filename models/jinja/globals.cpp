#include "models/jinja/globals.h"

#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "models/jinja/arguments.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"

namespace salient::models::jinja {

namespace {

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  const Bound bound(arguments, "raise_exception", "message");
  raise("the template refuses this conversation: {}", to_text(runtime, *bound[0]));
}

std::string format_now(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  if (format.empty()) return {};
  std::string text(format.size() * 4 + 256, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &local));
  return text;
}

Value strftime_now(Runtime& runtime, const Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", "format");
  const String* format = bound[0]->string();
  if (format == nullptr) raise("strftime_now() needs a string, not '{}'", type_name(*bound[0]));
  return Value(runtime.options.strftime_now ? runtime.options.strftime_now(format->text) : format_now(format->text));
}

Value make_range(Runtime&, const Arguments& arguments) {
  constexpr int64_t kMaxRange = 100000;  // the sandbox's
  if (arguments.positional.empty()) raise("range expected at least 1 argument, got 0");
  const Bound bound(arguments, "range", "start/ stop/= step/=");
  Range range;
  range.start = bound[1] == nullptr ? 0 : require_integer(*bound[0], "a range bound");
  range.stop = require_integer(bound[1] == nullptr ? *bound[0] : *bound[1], "a range bound");
  range.step = bound.integer(2, "a range step", 1);
  if (range.step == 0) raise("range() arg 3 must not be zero");
  if (range.size() < 0 || range.size() > kMaxRange) raise("range too big: ranges over {} items are blocked", kMaxRange);
  return Value(std::make_shared<const Range>(range));
}

// dict(mapping or pairs, key=value, ...).
Dict build_dict(Runtime& runtime, const Arguments& arguments, std::string_view function) {
  if (arguments.positional.size() > 1) raise("{} expected at most 1 argument, got {}", function, arguments.positional.size());
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& source = require_defined(arguments.positional[0]);
    if (source.dict() != nullptr) {
      for (const auto& [key, value] : source.dict()->entries) dict.set(runtime, key, value);
    } else {
      for (const Value& pair : drain(runtime, source)) {
        const std::vector<Value> parts = drain(runtime, pair);
        if (parts.size() != 2) raise("{} needs pairs, found a sequence of {} items", function, parts.size());
        dict.set(runtime, parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict.set(runtime, Value(name, false), value);
  return dict;
}

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  auto names = std::make_shared<Namespace>(Namespace{build_dict(runtime, arguments, "namespace")});
  for (const auto& [name, value] : names->attributes.entries) {
    if (name.is_string() && name.string()->text.starts_with('_'))
      raise("a namespace cannot have the attribute '{}'", name.string()->text);
  }
  runtime.namespaces.push_back(names);
  return Value(names);
}

Value make_cycler(Runtime&, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keyword.empty()) raise("cycler() needs at least one item");
  return Value(std::make_shared<Cycler>(Cycler{arguments.positional, 0, checked_depth(max_depth(arguments) + 1)}));
}

Value make_joiner(Runtime& runtime, const Arguments& arguments) {
  const Bound bound(arguments, "joiner", "sep=");
  const Value separator = bound[0] == nullptr ? Value(", ") : Value(to_text(runtime, *bound[0]));
  const auto used = std::make_shared<bool>(false);
  return Value(std::make_shared<const Function>(Function{
      "joiner", [separator, used](Runtime&, const Arguments&) { return std::exchange(*used, true) ? separator : Value(""); }}));
}

struct Global {
  std::string_view name;
  Value (*call)(Runtime& runtime, const Arguments& arguments);
};

constexpr Global kGlobals[] = {
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
    {"range", make_range},
    {"dict", [](Runtime& runtime, const Arguments& arguments) { return make_dict(build_dict(runtime, arguments, "dict")); }},
    {"namespace", make_namespace},
    {"cycler", make_cycler},
    {"joiner", make_joiner},
};

}  // namespace

Value find_global(std::string_view name) {
  for (const Global& global : kGlobals) {
    if (global.name == name) return Value(std::make_shared<const Function>(Function{std::string(name), global.call}));
  }
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

}  // namespace salient::models::jinja
