#include "models/jinja/template.h"

#include "models/jinja/ast.h"
#include "models/jinja/interpreter.h"
#include "models/jinja/parser.h"

namespace salient::models::jinja {

namespace {

// Empties what can hold itself through closures, one object after the other.
void release(Runtime& runtime) {
  for (const auto& names : runtime.namespaces) Dict().entries.swap(names->attributes.entries);
  for (const auto& scope : runtime.scopes) std::exchange(scope->variables, {});
}

}  // namespace

struct Template::Parts {
  std::string origin;
  Body body;
};

Template::Template(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

Template Template::parse(std::string_view source, std::string origin, const Syntax& syntax) {
  Body body = parse_template(source, origin, syntax);
  return Template(std::make_unique<const Parts>(Parts{std::move(origin), std::move(body)}));
}

std::string Template::render(const Variables& variables, const RenderOptions& options) const {
  Runtime runtime{options};
  std::string out;
  try {
    const auto scope = std::make_shared<Scope>(Scope{nullptr});
    for (const auto& [name, value] : variables) scope->set(name, value);
    // The template's own assignments shadow the variables, in a scope of their own as in Jinja2.
    Interpreter(runtime).run(parts_->body, std::make_shared<Scope>(Scope{scope}), out);
  } catch (const Failure& failure) {
    release(runtime);
    throw Error(failure.kind, fmt::format("{}:{}: {}", parts_->origin, runtime.line, failure.message));
  }
  release(runtime);
  return out;
}

}  // namespace salient::models::jinja
