// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/jinja/value.h"

namespace salient::models::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
  ExpressionPtr star;         // *args, may be null
  ExpressionPtr double_star;  // **kwargs, may be null
};

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class UnaryOperator { kNot, kNegate, kPlus };
enum class CompareOperator { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct Sequence {
  bool tuple;
  std::vector<ExpressionPtr> items;
};
struct Mapping {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Unary {
  UnaryOperator symbol;
  ExpressionPtr operand;
};
struct Binary {
  BinaryOperator symbol;
  ExpressionPtr left, right;
};
struct Logical {
  bool conjunction;
  ExpressionPtr left, right;
};
struct Concatenation {
  std::vector<ExpressionPtr> parts;
};
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<CompareOperator, ExpressionPtr>> rest;
};
struct Conditional {
  ExpressionPtr test, yes, no;  // `no` may be null
};
struct Attribute {
  ExpressionPtr object;
  std::string name;
};
struct Item {
  ExpressionPtr object, key;
};
struct SliceItem {
  ExpressionPtr object, start, stop, step;  // the last three may be null
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterCall {
  ExpressionPtr operand;  // null: the text of the block that the filter stands on
  std::string name;
  CallArguments arguments;
};
struct TestCall {
  ExpressionPtr operand;
  std::string name;
  CallArguments arguments;
};

struct Expression {
  int line;
  int depth;  // levels of nested expressions, itself included
  std::variant<Literal, Name, Sequence, Mapping, Unary, Binary, Logical, Concatenation, Comparison, Conditional, Attribute, Item,
               SliceItem, Call, FilterCall, TestCall>
      node;
};

// What for, set and with assign to.
struct Target {
  struct NamespaceAttribute {
    std::string name, attribute;
  };
  int line;
  std::variant<std::string, NamespaceAttribute, std::vector<Target>> node;
};

struct Statement;
using Body = std::vector<Statement>;

struct Text {
  std::string text;
};
struct Output {
  ExpressionPtr value;
};
struct For {
  Target target;
  ExpressionPtr iterable, condition;  // `condition` may be null
  bool recursive;
  Body body, otherwise;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body otherwise;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  ExpressionPtr filter;  // may be null
  Body body;
};
struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // may be null
};
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  // Which of the special names the body reads: Jinja2 passes them only then, and otherwise refuses extra arguments.
  bool reads_caller, reads_varargs, reads_kwargs;
};
struct CallBlock {
  MacroDefinition caller;
  ExpressionPtr call;
};
struct FilterBlock {
  ExpressionPtr filter;
  Body body;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> bindings;
  Body body;
};
struct Generation {  // transformers' {% generation %}: a scope of its own, otherwise transparent
  Body body;
};
struct Break {};
struct Continue {};

struct Statement {
  int line;
  std::variant<Text, Output, For, If, Set, SetBlock, MacroDefinition, CallBlock, FilterBlock, With, Generation, Break, Continue>
      node;
};

}  // namespace salient::models::jinja
