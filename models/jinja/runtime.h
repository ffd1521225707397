// What one rendering shares: limits, position, clock, and the error that operations raise.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

// A hostile template ends in an error instead of a hang, a full memory or an overflown stack.
struct Limits {
  size_t steps = 10'000'000;         // evaluated nodes and produced items
  size_t bytes = size_t{256} << 20;  // text produced in all, intermediate results included
  int depth = 1200;                  // nested evaluations; about 1 KB of stack each
};

struct RenderOptions {
  Limits limits;
  // Jinja2's StrictUndefined: a missing name, attribute or item may be asked whether it is defined, and be given a default; every
  // other use is an error.
  bool strict_undefined = false;
  // strftime_now(format). Empty: the local time now.
  std::function<std::string(const std::string& format)> strftime_now;
};

// An error of a running template before the origin and line are known.
struct Failure {
  ErrorKind kind;
  std::string message;
};

template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{ErrorKind::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)};
}
template <typename... Args>
[[noreturn]] void raise_unsupported(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{ErrorKind::kUnsupported, fmt::format(format, std::forward<Args>(args)...)};
}

struct Scope;

struct Runtime {
  static constexpr size_t kStepsBetweenChecks = 4096;
  static constexpr size_t kBytesOfAStep = 1024;
  const RenderOptions& options;
  int line = 1;
  int depth = 0;
  size_t steps = 0;
  size_t bytes = 0;
  // Namespaces and scopes can hold themselves through closures; both are emptied when the rendering ends.
  std::vector<std::shared_ptr<Namespace>> namespaces = {};
  std::vector<std::shared_ptr<Scope>> scopes = {};

  void step(size_t count = 1) {
    if (count > options.limits.steps - steps) raise("the template runs too long: more than {} steps", options.limits.steps);
    if (steps / kStepsBetweenChecks != (steps + count) / kStepsBetweenChecks) check_cancelled();
    steps += count;
  }
  // Call before reading through `count` bytes of text.
  void read(size_t count) { step(count / kBytesOfAStep); }
  // Call before making `count` bytes of text.
  void produce(size_t count) {
    if (count > options.limits.bytes - bytes) raise("the template makes too much text: more than {} bytes", options.limits.bytes);
    bytes += count;
  }
  // The same afterwards, of what an operation on `from` made, unless it gave that back.
  Value produced(Value made, const Value& from) {
    if (const String* text = made.string(); text != nullptr && text != from.string()) produce(text->text.size());
    return made;
  }
};

// Bounds recursion while it lives.
class DepthGuard {
 public:
  explicit DepthGuard(Runtime& runtime) : runtime_(runtime) {
    if (++runtime_.depth > runtime_.options.limits.depth) {
      --runtime_.depth;
      raise("the template nests calls or expressions too deep: more than {} levels", runtime_.options.limits.depth);
    }
  }
  ~DepthGuard() { --runtime_.depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Runtime& runtime_;
};

}  // namespace salient::models::jinja
