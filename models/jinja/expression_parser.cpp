#include "models/jinja/expression_parser.h"

#include <algorithm>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "common/error.h"
#include "models/jinja/filters.h"
#include "models/jinja/tests.h"

namespace salient::models::jinja {

namespace {

constexpr int kMaxExpressionDepth = 300;  // of the tree: a + b + c + ... is as deep as it is long

int depth_of(const ExpressionPtr& expression) { return expression == nullptr ? 0 : expression->depth; }

template <typename... Pointers>
int depth_of(const ExpressionPtr& first, const Pointers&... rest) {
  return std::max(depth_of(first), depth_of(rest...));
}

int depth_of(const std::vector<ExpressionPtr>& expressions) {
  int depth = 0;
  for (const ExpressionPtr& one : expressions) depth = std::max(depth, one->depth);
  return depth;
}

int depth_of(const CallArguments& arguments) {
  int depth = std::max(depth_of(arguments.positional), depth_of(arguments.star, arguments.double_star));
  for (const auto& [name, value] : arguments.keyword) depth = std::max(depth, value->depth);
  return depth;
}

int depth_of(const Literal&) { return 0; }
int depth_of(const Name&) { return 0; }
int depth_of(const Sequence& node) { return depth_of(node.items); }
int depth_of(const Mapping& node) {
  int depth = 0;
  for (const auto& [key, value] : node.entries) depth = std::max(depth, depth_of(key, value));
  return depth;
}
int depth_of(const Unary& node) { return depth_of(node.operand); }
int depth_of(const Binary& node) { return depth_of(node.left, node.right); }
int depth_of(const Logical& node) { return depth_of(node.left, node.right); }
int depth_of(const Concatenation& node) { return depth_of(node.parts); }
int depth_of(const Comparison& node) {
  int depth = node.first->depth;
  for (const auto& [symbol, operand] : node.rest) depth = std::max(depth, operand->depth);
  return depth;
}
int depth_of(const Conditional& node) { return depth_of(node.test, node.yes, node.no); }
int depth_of(const Attribute& node) { return depth_of(node.object); }
int depth_of(const Item& node) { return depth_of(node.object, node.key); }
int depth_of(const SliceItem& node) { return depth_of(node.object, node.start, node.stop, node.step); }
int depth_of(const Call& node) { return std::max(depth_of(node.callee), depth_of(node.arguments)); }
int depth_of(const FilterCall& node) { return std::max(depth_of(node.operand), depth_of(node.arguments)); }
int depth_of(const TestCall& node) { return std::max(depth_of(node.operand), depth_of(node.arguments)); }

bool* special(SpecialNames& names, std::string_view name) {
  if (name == "caller") return &names.caller;
  if (name == "varargs") return &names.varargs;
  if (name == "kwargs") return &names.kwargs;
  return nullptr;
}

}  // namespace

bool is_constant_name(std::string_view name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" || name == "None";
}

template <typename Node>
ExpressionPtr ExpressionParser::make(int line, Node node) {
  const int depth = 1 + depth_of(node);
  if (depth > kMaxExpressionDepth)
    cursor_.fail_unsupported(line, fmt::format("an expression is nested more than {} levels deep", kMaxExpressionDepth));
  return std::make_unique<const Expression>(Expression{line, depth, std::move(node)});
}

SpecialNames ExpressionParser::end_macro() {
  const SpecialNames names = macros_.back().read;
  macros_.pop_back();
  return names;
}

void ExpressionParser::note_load(const std::string& name) {
  for (MacroNames& macro : macros_) {
    if (bool* read = special(macro.read, name); read != nullptr && !*special(macro.stored, name)) *read = true;
  }
}

void ExpressionParser::note_store(const Target& target) {
  if (const auto* targets = std::get_if<std::vector<Target>>(&target.node)) {
    for (const Target& one : *targets) note_store(one);
  } else if (const auto* name = std::get_if<std::string>(&target.node)) {
    for (MacroNames& macro : macros_) {
      if (bool* stored = special(macro.stored, *name)) *stored = true;
    }
  }
}

void ExpressionParser::note_unknown(int line, std::string_view kind, std::string_view name) {
  if (soft_ == 0) unknown_.emplace_back(line, fmt::format("the {} '{}' is unknown", kind, name));
}

void ExpressionParser::require_known() const {
  if (!unknown_.empty()) cursor_.fail_unsupported(unknown_.front().first, unknown_.front().second);
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  const NestingGuard guard(cursor_);
  return with_conditional ? parse_conditional() : parse_or();
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end, bool parentheses) {
  const int line = cursor_.current().line;
  std::vector<ExpressionPtr> items;
  bool tuple = false;
  for (;;) {
    const TokenKind kind = cursor_.current().kind;
    if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || cursor_.is_operator(")")) break;
    if (!end.empty() && cursor_.is_name(end)) break;
    items.push_back(parse_expression(with_conditional));
    if (!cursor_.skip_operator(",")) break;
    tuple = true;
  }
  if (!tuple) {
    if (!items.empty()) return std::move(items.front());
    if (!parentheses) cursor_.fail_expected("an expression");
  }
  return make(line, Sequence{true, std::move(items)});
}

ExpressionPtr ExpressionParser::parse_conditional() {
  const NestingGuard guard(cursor_);
  int line = cursor_.current().line;
  const size_t known_unknown = unknown_.size();
  ExpressionPtr result = parse_or();
  while (cursor_.skip_name("if")) {
    const SoftScope soft(*this);
    unknown_.resize(known_unknown);  // what stands before the "if" is conditional too
    ExpressionPtr test = parse_or();
    ExpressionPtr no = cursor_.skip_name("else") ? parse_conditional() : nullptr;
    result = make(line, Conditional{std::move(test), std::move(result), std::move(no)});
    line = cursor_.current().line;
  }
  return result;
}

ExpressionPtr ExpressionParser::parse_or() {
  const int line = cursor_.current().line;
  ExpressionPtr left = parse_and();
  while (cursor_.skip_name("or")) {
    ExpressionPtr right = parse_and();
    left = make(line, Logical{false, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  const int line = cursor_.current().line;
  ExpressionPtr left = parse_not();
  while (cursor_.skip_name("and")) {
    ExpressionPtr right = parse_not();
    left = make(line, Logical{true, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const int line = cursor_.current().line;
  if (!cursor_.skip_name("not")) return parse_compare();
  const NestingGuard guard(cursor_);
  return make(line, Unary{UnaryOperator::kNot, parse_not()});
}

ExpressionPtr ExpressionParser::parse_compare() {
  const int line = cursor_.current().line;
  ExpressionPtr first = parse_sum();
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
  for (;;) {
    const Token& token = cursor_.current();
    CompareOperator symbol{};
    if (token.kind == TokenKind::kOperator) {
      if (token.text == "==")
        symbol = CompareOperator::kEqual;
      else if (token.text == "!=")
        symbol = CompareOperator::kNotEqual;
      else if (token.text == "<")
        symbol = CompareOperator::kLess;
      else if (token.text == "<=")
        symbol = CompareOperator::kLessEqual;
      else if (token.text == ">")
        symbol = CompareOperator::kGreater;
      else if (token.text == ">=")
        symbol = CompareOperator::kGreaterEqual;
      else
        break;
      cursor_.next();
    } else if (cursor_.skip_name("in")) {
      symbol = CompareOperator::kIn;
    } else if (cursor_.is_name("not") && cursor_.look().kind == TokenKind::kName && cursor_.look().text == "in") {
      cursor_.next();
      cursor_.next();
      symbol = CompareOperator::kNotIn;
    } else {
      break;
    }
    rest.emplace_back(symbol, parse_sum());
  }
  if (rest.empty()) return first;
  return make(line, Comparison{std::move(first), std::move(rest)});
}

ExpressionPtr ExpressionParser::parse_sum() {
  const int line = cursor_.current().line;
  ExpressionPtr left = parse_concatenation();
  for (;;) {
    BinaryOperator symbol{};
    if (cursor_.skip_operator("+"))
      symbol = BinaryOperator::kAdd;
    else if (cursor_.skip_operator("-"))
      symbol = BinaryOperator::kSubtract;
    else
      return left;
    ExpressionPtr right = parse_concatenation();
    left = make(line, Binary{symbol, std::move(left), std::move(right)});
  }
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  const int line = cursor_.current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(parse_product());
  while (cursor_.skip_operator("~")) parts.push_back(parse_product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(line, Concatenation{std::move(parts)});
}

ExpressionPtr ExpressionParser::parse_product() {
  const int line = cursor_.current().line;
  ExpressionPtr left = parse_power();
  for (;;) {
    BinaryOperator symbol{};
    if (cursor_.skip_operator("*"))
      symbol = BinaryOperator::kMultiply;
    else if (cursor_.skip_operator("/"))
      symbol = BinaryOperator::kDivide;
    else if (cursor_.skip_operator("//"))
      symbol = BinaryOperator::kFloorDivide;
    else if (cursor_.skip_operator("%"))
      symbol = BinaryOperator::kModulo;
    else
      return left;
    ExpressionPtr right = parse_power();
    left = make(line, Binary{symbol, std::move(left), std::move(right)});
  }
}

ExpressionPtr ExpressionParser::parse_power() {
  const int line = cursor_.current().line;
  ExpressionPtr left = parse_unary();
  while (cursor_.skip_operator("**")) {
    ExpressionPtr right = parse_unary();
    left = make(line, Binary{BinaryOperator::kPower, std::move(left), std::move(right)});
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const NestingGuard guard(cursor_);
  const int line = cursor_.current().line;
  ExpressionPtr node;
  if (cursor_.skip_operator("-")) {
    node = make(line, Unary{UnaryOperator::kNegate, parse_unary(false)});
  } else if (cursor_.skip_operator("+")) {
    node = make(line, Unary{UnaryOperator::kPlus, parse_unary(false)});
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token token = cursor_.current();
  switch (token.kind) {
    case TokenKind::kName:
      cursor_.next();
      if (token.text == "true" || token.text == "True") return make(token.line, Literal{Value(true)});
      if (token.text == "false" || token.text == "False") return make(token.line, Literal{Value(false)});
      if (token.text == "none" || token.text == "None") return make(token.line, Literal{Value()});
      note_load(token.text);
      return make(token.line, Name{token.text});
    case TokenKind::kString: {
      std::string text;
      while (cursor_.current().kind == TokenKind::kString) text += cursor_.next().text;
      return make(token.line, Literal{Value(std::move(text))});
    }
    case TokenKind::kInteger: cursor_.next(); return make(token.line, Literal{Value(std::get<int64_t>(token.number))});
    case TokenKind::kFloat: cursor_.next(); return make(token.line, Literal{Value(std::get<double>(token.number))});
    default: break;
  }
  if (cursor_.skip_operator("(")) {
    ExpressionPtr inner = parse_tuple(true, {}, true);
    cursor_.expect_operator(")");
    return inner;
  }
  if (cursor_.is_operator("[")) return parse_list();
  if (cursor_.is_operator("{")) return parse_dict();
  cursor_.fail_expected("an expression");
}

ExpressionPtr ExpressionParser::parse_list() {
  const int line = cursor_.next().line;
  std::vector<ExpressionPtr> items;
  while (!cursor_.is_operator("]")) {
    items.push_back(parse_expression());
    if (!cursor_.is_operator("]")) cursor_.expect_operator(",");
  }
  cursor_.next();
  return make(line, Sequence{false, std::move(items)});
}

ExpressionPtr ExpressionParser::parse_dict() {
  const int line = cursor_.next().line;
  Mapping mapping;
  while (!cursor_.is_operator("}")) {
    ExpressionPtr key = parse_expression();
    cursor_.expect_operator(":");
    mapping.entries.emplace_back(std::move(key), parse_expression());
    if (!cursor_.is_operator("}")) cursor_.expect_operator(",");
  }
  cursor_.next();
  return make(line, std::move(mapping));
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr operand) {
  for (;;) {
    if (cursor_.is_operator(".") || cursor_.is_operator("[")) {
      operand = parse_subscript(std::move(operand));
    } else if (cursor_.is_operator("(")) {
      const int line = cursor_.current().line;
      operand = make(line, Call{std::move(operand), parse_arguments()});
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr operand) {
  for (;;) {
    if (cursor_.is_operator("|")) {
      operand = parse_filter_chain(std::move(operand), false);
    } else if (cursor_.is_name("is")) {
      operand = parse_test(std::move(operand));
    } else if (cursor_.is_operator("(")) {
      const int line = cursor_.current().line;
      operand = make(line, Call{std::move(operand), parse_arguments()});
    } else {
      return operand;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const int line = cursor_.current().line;
  if (cursor_.skip_operator(".")) {
    const Token name = cursor_.next();
    if (name.kind == TokenKind::kName) return make(line, Attribute{std::move(object), name.text});
    if (name.kind != TokenKind::kInteger)
      cursor_.fail_at(name.line, fmt::format("found {}, expected the name or number of an attribute", describe(name)));
    return make(line, Item{std::move(object), make(name.line, Literal{Value(std::get<int64_t>(name.number))})});
  }
  cursor_.next();
  const auto at_part_end = [&] { return cursor_.is_operator("]") || cursor_.is_operator(",") || cursor_.is_operator(":"); };
  if (cursor_.is_operator("]")) return make(line, Item{std::move(object), make(line, Sequence{true, {}})});
  ExpressionPtr start = cursor_.is_operator(":") ? nullptr : parse_expression();
  if (!cursor_.skip_operator(":")) {
    if (cursor_.is_operator(",")) {  // object[a, b] is object[(a, b)]
      std::vector<ExpressionPtr> keys;
      keys.push_back(std::move(start));
      while (cursor_.skip_operator(",")) {
        keys.push_back(parse_expression());
        if (cursor_.is_operator(":")) cursor_.fail_unsupported(line, "slices over several dimensions are not supported");
      }
      start = make(line, Sequence{true, std::move(keys)});
    }
    cursor_.expect_operator("]");
    return make(line, Item{std::move(object), std::move(start)});
  }
  ExpressionPtr stop = at_part_end() ? nullptr : parse_expression();
  ExpressionPtr step;
  if (cursor_.skip_operator(":") && !at_part_end()) step = parse_expression();
  if (cursor_.is_operator(",")) cursor_.fail_unsupported(line, "slices over several dimensions are not supported");
  cursor_.expect_operator("]");
  return make(line, SliceItem{std::move(object), std::move(start), std::move(stop), std::move(step)});
}

CallArguments ExpressionParser::parse_arguments() {
  const int line = cursor_.current().line;
  cursor_.expect_operator("(");
  CallArguments arguments;
  const auto ensure = [&](bool valid) {
    if (!valid)
      cursor_.fail_at(line, "found call arguments in the wrong order, expected positional, then keyword, then * and ** arguments");
  };
  bool first = true;
  while (!cursor_.is_operator(")")) {
    if (!first) {
      cursor_.expect_operator(",");
      if (cursor_.is_operator(")")) break;
    }
    first = false;
    if (cursor_.skip_operator("*")) {
      ensure(arguments.star == nullptr && arguments.double_star == nullptr);
      arguments.star = parse_expression();
    } else if (cursor_.skip_operator("**")) {
      ensure(arguments.double_star == nullptr);
      arguments.double_star = parse_expression();
    } else if (cursor_.current().kind == TokenKind::kName && cursor_.look().kind == TokenKind::kOperator &&
               cursor_.look().text == "=") {
      ensure(arguments.double_star == nullptr);
      std::string name = cursor_.next().text;
      cursor_.next();
      for (const auto& [other, value] : arguments.keyword) {
        if (other == name) cursor_.fail_at(line, fmt::format("found the keyword argument '{}' twice", name));
      }
      arguments.keyword.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(arguments.star == nullptr && arguments.double_star == nullptr && arguments.keyword.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  cursor_.expect_operator(")");
  return arguments;
}

std::string ExpressionParser::parse_dotted_name(std::string_view expected) {
  std::string name = cursor_.expect(TokenKind::kName, expected).text;
  while (cursor_.skip_operator(".")) name += "." + cursor_.expect(TokenKind::kName, expected).text;
  return name;
}

ExpressionPtr ExpressionParser::parse_filter_chain(ExpressionPtr operand, bool inline_start) {
  while (inline_start || cursor_.is_operator("|")) {
    if (!inline_start) cursor_.next();
    inline_start = false;
    const int line = cursor_.current().line;
    std::string name = parse_dotted_name("the name of a filter");
    if (!is_filter(name)) note_unknown(line, "filter", name);
    CallArguments arguments = cursor_.is_operator("(") ? parse_arguments() : CallArguments{};
    operand = make(line, FilterCall{std::move(operand), std::move(name), std::move(arguments)});
  }
  return operand;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr operand) {
  const int line = cursor_.next().line;
  const bool negated = cursor_.skip_name("not");
  std::string name = parse_dotted_name("the name of a test");
  if (!is_test(name)) note_unknown(line, "test", name);
  CallArguments arguments;
  const Token& token = cursor_.current();
  const bool operand_follows = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                               token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat || cursor_.is_operator("[") ||
                               cursor_.is_operator("{");
  if (cursor_.is_operator("(")) {
    arguments = parse_arguments();
  } else if (operand_follows && !cursor_.is_name("else") && !cursor_.is_name("or") && !cursor_.is_name("and")) {
    if (cursor_.is_name("is")) cursor_.fail_at(token.line, "found a test behind a test; expected 'and' or 'or' between them");
    arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExpressionPtr test = make(line, TestCall{std::move(operand), std::move(name), std::move(arguments)});
  return negated ? make(line, Unary{UnaryOperator::kNot, std::move(test)}) : std::move(test);
}

}  // namespace salient::models::jinja
