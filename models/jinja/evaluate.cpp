// The interpreter's expressions.
#include <type_traits>

#include "models/jinja/filters.h"
#include "models/jinja/globals.h"
#include "models/jinja/interpreter.h"
#include "models/jinja/iteration.h"
#include "models/jinja/operators.h"
#include "models/jinja/tests.h"

namespace salient::models::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->outer.get()) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [known, old] : variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

Value Interpreter::evaluate(const Expression& expression, const ScopePtr& scope) {
  runtime_.line = expression.line;
  runtime_.step();
  const DepthGuard guard(runtime_);
  return std::visit([&](const auto& node) { return evaluate_node(node, expression.line, scope); }, expression.node);
}

Value Interpreter::look_up(std::string_view name, const Scope& scope) const {
  const Value* found = scope.find(name);
  return found != nullptr ? *found : find_global(name);
}

Arguments Interpreter::evaluate_arguments(const CallArguments& nodes, const ScopePtr& scope) {
  Arguments arguments;
  for (const ExpressionPtr& node : nodes.positional) arguments.positional.push_back(evaluate(*node, scope));
  if (nodes.star != nullptr) {
    for (Value& item : drain(runtime_, evaluate(*nodes.star, scope))) arguments.positional.push_back(std::move(item));
  }
  for (const auto& [name, node] : nodes.keyword) arguments.keyword.emplace_back(name, evaluate(*node, scope));
  if (nodes.double_star != nullptr) {
    const Value mapping = evaluate(*nodes.double_star, scope);
    if (mapping.dict() == nullptr) raise("the argument after ** must be a mapping, not '{}'", type_name(mapping));
    for (const auto& [name, value] : mapping.dict()->entries) {
      if (!name.is_string()) raise("keywords must be strings");
      runtime_.step(arguments.keyword.size());
      for (const auto& [other, given] : arguments.keyword) {
        if (other == name.string()->text) raise("got multiple values for keyword argument '{}'", other);
      }
      arguments.keyword.emplace_back(name.string()->text, value);
    }
  }
  return arguments;
}

Value Interpreter::evaluate_node(const Literal& node, int, const ScopePtr&) { return node.value; }

Value Interpreter::evaluate_node(const Name& node, int, const ScopePtr& scope) { return look_up(node.name, *scope); }

Value Interpreter::evaluate_node(const Sequence& node, int, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const ExpressionPtr& item : node.items) items.push_back(evaluate(*item, scope));
  return make_list(std::move(items), node.tuple ? List::Kind::kTuple : List::Kind::kList);
}

Value Interpreter::evaluate_node(const Mapping& node, int line, const ScopePtr& scope) {
  Dict dict;
  for (const auto& [key_node, value_node] : node.entries) {
    Value key = evaluate(*key_node, scope);
    Value value = evaluate(*value_node, scope);
    runtime_.line = line;
    dict.set(runtime_, std::move(key), std::move(value));
  }
  return make_dict(std::move(dict));
}

Value Interpreter::evaluate_node(const Unary& node, int line, const ScopePtr& scope) {
  const Value operand = evaluate(*node.operand, scope);
  runtime_.line = line;
  return apply(runtime_, node.symbol, operand);
}

Value Interpreter::evaluate_node(const Binary& node, int line, const ScopePtr& scope) {
  const Value left = evaluate(*node.left, scope);
  const Value right = evaluate(*node.right, scope);
  runtime_.line = line;
  return apply(runtime_, node.symbol, left, right);
}

Value Interpreter::evaluate_node(const Logical& node, int, const ScopePtr& scope) {
  Value left = evaluate(*node.left, scope);
  return is_true(runtime_, left) == node.conjunction ? evaluate(*node.right, scope) : left;
}

Value Interpreter::evaluate_node(const Concatenation& node, int line, const ScopePtr& scope) {
  std::string text;
  std::vector<Value> parts;
  for (const ExpressionPtr& part : node.parts) parts.push_back(evaluate(*part, scope));
  runtime_.line = line;
  for (const Value& part : parts) text += to_text(runtime_, part);
  return Value(std::move(text));
}

Value Interpreter::evaluate_node(const Comparison& node, int line, const ScopePtr& scope) {
  Value left = evaluate(*node.first, scope);
  for (const auto& [symbol, operand] : node.rest) {
    Value right = evaluate(*operand, scope);
    runtime_.line = line;
    if (!compare(runtime_, symbol, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_node(const Conditional& node, int line, const ScopePtr& scope) {
  if (is_true(runtime_, evaluate(*node.test, scope))) return evaluate(*node.yes, scope);
  if (node.no != nullptr) return evaluate(*node.no, scope);
  return Value::undefined(
      fmt::format("the inline if-expression on line {} evaluated to false and no else section was defined.", line),
      /*lenient=*/true);
}

Value Interpreter::evaluate_node(const Attribute& node, int line, const ScopePtr& scope) {
  const Value object = evaluate(*node.object, scope);
  runtime_.line = line;
  return get_attribute(runtime_, object, node.name);
}

Value Interpreter::evaluate_node(const Item& node, int line, const ScopePtr& scope) {
  const Value object = evaluate(*node.object, scope);
  const Value key = evaluate(*node.key, scope);
  runtime_.line = line;
  return get_item(runtime_, object, key);
}

Value Interpreter::evaluate_node(const SliceItem& node, int line, const ScopePtr& scope) {
  const Value object = evaluate(*node.object, scope);
  const auto bound = [&](const ExpressionPtr& part) { return part == nullptr ? Value() : evaluate(*part, scope); };
  const Value start = bound(node.start), stop = bound(node.stop), step = bound(node.step);
  runtime_.line = line;
  return get_slice(runtime_, object, start, stop, step);
}

Value Interpreter::evaluate_node(const Call& node, int line, const ScopePtr& scope) {
  const Value callee = evaluate(*node.callee, scope);
  const Arguments arguments = evaluate_arguments(node.arguments, scope);
  runtime_.line = line;
  return call(runtime_, callee, arguments);
}

Value Interpreter::evaluate_node(const FilterCall& node, int line, const ScopePtr& scope) {
  const Value subject = evaluate(*node.operand, scope);
  const Arguments arguments = evaluate_arguments(node.arguments, scope);
  runtime_.line = line;
  return apply_filter(runtime_, node.name, subject, arguments);
}

Value Interpreter::evaluate_node(const TestCall& node, int line, const ScopePtr& scope) {
  const Value subject = evaluate(*node.operand, scope);
  const Arguments arguments = evaluate_arguments(node.arguments, scope);
  runtime_.line = line;
  return apply_test(runtime_, node.name, subject, arguments);
}

Value Interpreter::apply_block_filter(const Expression& filter, const Value& text, const ScopePtr& scope) {
  const auto& node = std::get<FilterCall>(filter.node);
  const Value subject = node.operand == nullptr ? text : apply_block_filter(*node.operand, text, scope);
  const Arguments arguments = evaluate_arguments(node.arguments, scope);
  runtime_.line = filter.line;
  return apply_filter(runtime_, node.name, subject, arguments);
}

}  // namespace salient::models::jinja
