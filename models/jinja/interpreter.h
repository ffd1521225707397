// Runs a syntax tree.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/ast.h"
#include "models/jinja/runtime.h"

namespace salient::models::jinja {

// Variables of a for body, macro, with block and the like; what is not found here is looked up outside.
struct Scope {
  std::shared_ptr<Scope> outer;
  std::vector<std::pair<std::string_view, Value>> variables = {};  // names belong to the syntax tree or the caller

  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  explicit Interpreter(Runtime& runtime) : runtime_(runtime) {}

  enum class Flow { kNext, kBreak, kContinue };
  Flow run(const Body& body, const ScopePtr& scope, std::string& out);
  Value evaluate(const Expression& expression, const ScopePtr& scope);

 private:
  Flow run(const Statement& statement, const ScopePtr& scope, std::string& out);
  Flow run_if(const If& statement, const ScopePtr& scope, std::string& out);
  void run_for(const For& statement, const Value& iterable, int64_t depth, const ScopePtr& scope, std::string& out);
  std::shared_ptr<Iterator> filtered(const For& statement, std::shared_ptr<Iterator> items, const ScopePtr& scope);
  Flow run_set(const Set& statement, const ScopePtr& scope);
  Flow run_set_block(const SetBlock& statement, const ScopePtr& scope);
  Flow run_filter_block(const FilterBlock& statement, const ScopePtr& scope, std::string& out);
  Flow run_with(const With& statement, const ScopePtr& scope, std::string& out);
  void run_macro_definition(const MacroDefinition& macro, const ScopePtr& scope);
  void run_call_block(const CallBlock& statement, const ScopePtr& scope, std::string& out);
  void write(const Value& value, std::string& out);

  void assign(const Target& target, const Value& value, Scope& scope);
  // Errors: there is no such namespace.
  static std::shared_ptr<Namespace> namespace_of(const Target::NamespaceAttribute& attribute, const Scope& scope);
  void require_namespaces(const Target& target, const Scope& scope);
  Value make_macro(const MacroDefinition& macro, const ScopePtr& scope);
  Value call_macro(const MacroDefinition& macro, const ScopePtr& scope, const Arguments& arguments);
  Value apply_block_filter(const Expression& filter, const Value& text, const ScopePtr& scope);

  Value look_up(std::string_view name, const Scope& scope) const;
  Arguments evaluate_arguments(const CallArguments& arguments, const ScopePtr& scope);
  Value evaluate_node(const Literal& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Name& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Sequence& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Mapping& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Unary& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Binary& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Logical& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Concatenation& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Comparison& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Conditional& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Attribute& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Item& node, int line, const ScopePtr& scope);
  Value evaluate_node(const SliceItem& node, int line, const ScopePtr& scope);
  Value evaluate_node(const Call& node, int line, const ScopePtr& scope);
  Value evaluate_node(const FilterCall& node, int line, const ScopePtr& scope);
  Value evaluate_node(const TestCall& node, int line, const ScopePtr& scope);

  Runtime& runtime_;
};

}  // namespace salient::models::jinja
