// A parsed Jinja2 template, by default as transformers' chat templates are configured: trim_blocks, lstrip_blocks, no autoescape,
// the immutable sandbox, loop controls, generation blocks, and the globals raise_exception, strftime_now, range, dict, namespace,
// cycler, joiner.
//
// Values differ from Python's where templates do not reach: integers have 64 bits, generators and functions print without address.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/runtime.h"
#include "models/jinja/syntax.h"
#include "models/jinja/value.h"

namespace salient::models::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// Immutable; safe to use from many threads.
class Template {
 public:
  // Errors: corruption (syntax), unsupported (unknown tag, filter or test; nesting), as "<origin>:<line>: ...".
  static Template parse(std::string_view source, std::string origin, const Syntax& syntax = {});

  // Later variables win over earlier ones of the same name, and all over the globals. Errors, as "<origin>:<line>: ...": invalid
  // argument for raise_exception, undefined values used as values, wrong kinds of operands, and for templates that exceed the
  // limits; unsupported.
  std::string render(const Variables& variables, const RenderOptions& options = {}) const;

  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

 private:
  struct Parts;
  explicit Template(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace salient::models::jinja
