// The interpreter's statements.
#include <algorithm>
#include <utility>

#include "models/jinja/interpreter.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"

namespace salient::models::jinja {

namespace {

ScopePtr inside(const ScopePtr& scope) { return std::make_shared<Scope>(Scope{scope}); }

}  // namespace

Interpreter::Flow Interpreter::run(const Body& body, const ScopePtr& scope, std::string& out) {
  const DepthGuard guard(runtime_);
  for (const Statement& statement : body) {
    runtime_.line = statement.line;
    runtime_.step();
    if (const Flow flow = run(statement, scope, out); flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run(const Statement& statement, const ScopePtr& scope, std::string& out) {
  const auto& node = statement.node;
  if (const auto* text = std::get_if<Text>(&node)) {
    runtime_.produce(text->text.size());
    out += text->text;
  } else if (const auto* output = std::get_if<Output>(&node)) {
    const Value value = evaluate(*output->value, scope);
    runtime_.line = statement.line;
    write(value, out);
  } else if (const auto* choice = std::get_if<If>(&node)) {
    return run_if(*choice, scope, out);
  } else if (const auto* loop = std::get_if<For>(&node)) {
    run_for(*loop, evaluate(*loop->iterable, scope), 0, scope, out);
  } else if (const auto* set = std::get_if<Set>(&node)) {
    return run_set(*set, scope);
  } else if (const auto* block = std::get_if<SetBlock>(&node)) {
    return run_set_block(*block, scope);
  } else if (const auto* macro = std::get_if<MacroDefinition>(&node)) {
    run_macro_definition(*macro, scope);
  } else if (const auto* call_block = std::get_if<CallBlock>(&node)) {
    run_call_block(*call_block, scope, out);
  } else if (const auto* filter_block = std::get_if<FilterBlock>(&node)) {
    return run_filter_block(*filter_block, scope, out);
  } else if (const auto* with = std::get_if<With>(&node)) {
    return run_with(*with, scope, out);
  } else if (const auto* generation = std::get_if<Generation>(&node)) {
    run(generation->body, inside(scope), out);
  } else {
    return std::holds_alternative<Break>(node) ? Flow::kBreak : Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::write(const Value& value, std::string& out) {
  if (const String* string = value.string()) {
    runtime_.produce(string->text.size());
    out += string->text;
  } else {
    out += to_text(runtime_, value);
  }
}

Interpreter::Flow Interpreter::run_if(const If& statement, const ScopePtr& scope, std::string& out) {
  for (const auto& [test, body] : statement.branches) {
    if (is_true(runtime_, evaluate(*test, scope))) return run(body, scope, out);
  }
  return run(statement.otherwise, scope, out);
}

// The items for which the loop's condition holds, tested one by one as the loop takes them.
std::shared_ptr<Iterator> Interpreter::filtered(const For& statement, std::shared_ptr<Iterator> items, const ScopePtr& scope) {
  return make_iterator("generator", items->depth + 1, [this, &statement, items, scope](Runtime& runtime, Value& out) {
    while (items->next(runtime, out)) {
      const ScopePtr test_scope = inside(scope);
      assign(statement.target, out, *test_scope);
      if (is_true(runtime, evaluate(*statement.condition, test_scope))) return true;
    }
    return false;
  });
}

void Interpreter::run_for(const For& statement, const Value& iterable, int64_t depth, const ScopePtr& scope, std::string& out) {
  const auto loop = std::make_shared<Loop>();
  loop->items = iterate(runtime_, iterable);
  loop->depth0 = depth;
  if (statement.condition != nullptr) {
    loop->items = filtered(statement, loop->items, scope);
  } else {
    loop->length = length_of(iterable);
  }
  if (statement.recursive) {
    loop->recurse = [this, &statement, scope](Runtime&, const Value& inner, int64_t inner_depth) {
      std::string text;
      run_for(statement, inner, inner_depth, scope, text);
      return Value(std::move(text));
    };
  }
  bool completed = false;  // whether a body ran to its end: like Jinja2, break and continue leave "else" to run
  {
    struct End {
      Loop& loop;
      ~End() { loop.end(); }
    } const end{*loop};
    while (loop->advance(runtime_)) {
      const ScopePtr body_scope = inside(scope);
      body_scope->set("loop", Value(loop));
      assign(statement.target, *loop->current, *body_scope);
      const Flow flow = run(statement.body, body_scope, out);
      if (flow == Flow::kBreak) break;
      if (flow == Flow::kNext) completed = true;
    }
  }
  if (!completed) run(statement.otherwise, inside(scope), out);
}

Interpreter::Flow Interpreter::run_set(const Set& statement, const ScopePtr& scope) {
  require_namespaces(statement.target, *scope);
  const Value value = evaluate(*statement.value, scope);
  runtime_.line = statement.target.line;
  assign(statement.target, value, *scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_set_block(const SetBlock& statement, const ScopePtr& scope) {
  const ScopePtr block_scope = inside(scope);
  std::string text;
  if (const Flow flow = run(statement.body, block_scope, text); flow != Flow::kNext) return flow;
  Value value(std::move(text));
  if (statement.filter != nullptr) value = apply_block_filter(*statement.filter, value, block_scope);
  runtime_.line = statement.target.line;
  require_namespaces(statement.target, *scope);
  assign(statement.target, value, *scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_filter_block(const FilterBlock& statement, const ScopePtr& scope, std::string& out) {
  const ScopePtr block_scope = inside(scope);
  std::string text;
  if (const Flow flow = run(statement.body, block_scope, text); flow != Flow::kNext) return flow;
  write(apply_block_filter(*statement.filter, Value(std::move(text)), block_scope), out);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_with(const With& statement, const ScopePtr& scope, std::string& out) {
  const ScopePtr inner = inside(scope);
  for (const auto& [target, value] : statement.bindings) assign(target, evaluate(*value, scope), *inner);
  return run(statement.body, inner, out);
}

std::shared_ptr<Namespace> Interpreter::namespace_of(const Target::NamespaceAttribute& attribute, const Scope& scope) {
  const Value* holder = scope.find(attribute.name);
  const auto* held = holder == nullptr ? nullptr : holder->get<std::shared_ptr<Namespace>>();
  if (held == nullptr) raise("cannot assign attribute '{}' on non-namespace object '{}'", attribute.attribute, attribute.name);
  return *held;
}

void Interpreter::require_namespaces(const Target& target, const Scope& scope) {
  if (const auto* targets = std::get_if<std::vector<Target>>(&target.node)) {
    for (const Target& one : *targets) require_namespaces(one, scope);
  } else if (const auto* attribute = std::get_if<Target::NamespaceAttribute>(&target.node)) {
    namespace_of(*attribute, scope);
  }
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (const auto* name = std::get_if<std::string>(&target.node)) {
    scope.set(*name, value);
  } else if (const auto* attribute = std::get_if<Target::NamespaceAttribute>(&target.node)) {
    if (attribute->attribute.starts_with('_')) raise("a namespace cannot have the attribute '{}'", attribute->attribute);
    // Looked up again: a tuple's targets are given one after the other, and one may replace the namespace.
    namespace_of(*attribute, scope)->attributes.set(runtime_, Value(attribute->attribute, false), value);
  } else {
    const auto& targets = std::get<std::vector<Target>>(target.node);
    if (!is_iterable(runtime_, value))
      raise("cannot unpack non-iterable {} object", value.is_none() ? "NoneType" : type_name(value));
    const std::vector<Value> items = drain(runtime_, value);
    if (items.size() < targets.size()) raise("not enough values to unpack (expected {}, got {})", targets.size(), items.size());
    if (items.size() > targets.size()) raise("too many values to unpack (expected {})", targets.size());
    for (size_t i = 0; i < targets.size(); ++i) assign(targets[i], items[i], scope);
  }
}

Value Interpreter::make_macro(const MacroDefinition& macro, const ScopePtr& scope) {
  // The macro sits in the scope that it closes over.
  if (runtime_.scopes.empty() || runtime_.scopes.back() != scope) runtime_.scopes.push_back(scope);
  const auto invoke = [this, &macro, scope](Runtime&, const Arguments& arguments) { return call_macro(macro, scope, arguments); };
  return Value(std::make_shared<const Function>(Function{macro.name, invoke, true}));
}

void Interpreter::run_macro_definition(const MacroDefinition& macro, const ScopePtr& scope) {
  scope->set(macro.name, make_macro(macro, scope));
}

void Interpreter::run_call_block(const CallBlock& statement, const ScopePtr& scope, std::string& out) {
  const auto& node = std::get<Call>(statement.call->node);
  const Value callee = evaluate(*node.callee, scope);
  Arguments arguments = evaluate_arguments(node.arguments, scope);
  arguments.keyword.emplace_back("caller", make_macro(statement.caller, scope));
  runtime_.line = statement.call->line;
  write(call(runtime_, callee, arguments), out);
}

Value Interpreter::call_macro(const MacroDefinition& macro, const ScopePtr& definition_scope, const Arguments& arguments) {
  const ScopePtr scope = inside(definition_scope);
  const size_t count = macro.parameters.size();
  std::vector<std::pair<std::string, Value>> keyword = arguments.keyword;
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    const auto found = std::find_if(keyword.begin(), keyword.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == keyword.end()) return std::nullopt;
    Value value = std::move(found->second);
    keyword.erase(found);
    return value;
  };
  std::vector<std::optional<Value>> given(count);
  for (size_t i = 0; i < count; ++i) {
    given[i] = i < arguments.positional.size() ? std::optional<Value>(arguments.positional[i]) : take(macro.parameters[i].name);
  }
  if (macro.reads_caller) {
    std::optional<Value> caller = take("caller");
    scope->set("caller", caller && !caller->is_none() ? *caller : Value::undefined("No caller defined"));
  }
  if (macro.reads_kwargs) {
    Dict rest;
    for (const auto& [name, value] : keyword) rest.append(name, value);
    scope->set("kwargs", make_dict(std::move(rest)));
  } else if (!keyword.empty()) {
    if (keyword.front().first == "caller") raise("macro '{}' was invoked with a caller that it does not use", macro.name);
    raise("macro '{}' takes no keyword argument '{}'", macro.name, keyword.front().first);
  }
  if (macro.reads_varargs) {
    const auto first = arguments.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, arguments.positional.size()));
    scope->set("varargs", make_list({first, arguments.positional.end()}, List::Kind::kTuple));
  } else if (arguments.positional.size() > count) {
    raise("macro '{}' takes not more than {} argument(s)", macro.name, count);
  }
  // Defaults may use the parameters before them.
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = macro.parameters[i];
    if (given[i]) {
      scope->set(parameter.name, std::move(*given[i]));
    } else if (parameter.fallback != nullptr) {
      scope->set(parameter.name, evaluate(*parameter.fallback, scope));
    } else {
      scope->set(parameter.name, Value::undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  std::string text;
  run(macro.body, scope, text);
  return Value(std::move(text));
}

}  // namespace salient::models::jinja
