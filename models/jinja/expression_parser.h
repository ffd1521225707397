// The expression half of the parser.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/ast.h"
#include "models/jinja/token_cursor.h"

namespace salient::models::jinja {

// True, False, None and their lower-case forms.
bool is_constant_name(std::string_view name);

struct SpecialNames {
  bool caller = false, varargs = false, kwargs = false;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenCursor& cursor) : cursor_(cursor) {}

  ExpressionPtr parse_expression(bool with_conditional = true);
  // An expression, or several with commas between them. `end`: a name that ends the tuple.
  ExpressionPtr parse_tuple(bool with_conditional = true, std::string_view end = {}, bool parentheses = false);
  // `operand | name(...) | ...`; with `inline_start`, the first name has no bar in front. Null where no filter follows a null
  // operand.
  ExpressionPtr parse_filter_chain(ExpressionPtr operand, bool inline_start);

  // Between the two: which special names the expressions read before they are assigned.
  void begin_macro() { macros_.emplace_back(); }
  SpecialNames end_macro();
  void note_store(const Target& target);

  // Call at the end of the template. Errors: unsupported, for the first unknown filter or test. Those in conditional code fail only
  // when they are reached, as in Jinja2.
  void require_known() const;

 private:
  friend class SoftScope;
  struct MacroNames {
    SpecialNames read, stored;
  };

  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_postfix(ExpressionPtr operand);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr operand);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_test(ExpressionPtr operand);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  CallArguments parse_arguments();
  std::string parse_dotted_name(std::string_view expected);
  void note_load(const std::string& name);
  void note_unknown(int line, std::string_view kind, std::string_view name);

  template <typename Node>
  ExpressionPtr make(int line, Node node);

  TokenCursor& cursor_;
  int soft_ = 0;                                      // inside an if block
  std::vector<std::pair<int, std::string>> unknown_;  // line and text of each unknown filter and test outside of conditional code
  std::vector<MacroNames> macros_;
};

// While it lives, the parsed code is conditional.
class SoftScope {
 public:
  explicit SoftScope(ExpressionParser& parser) : parser_(parser) { ++parser_.soft_; }
  ~SoftScope() { --parser_.soft_; }
  SoftScope(const SoftScope&) = delete;
  SoftScope& operator=(const SoftScope&) = delete;

 private:
  ExpressionParser& parser_;
};

}  // namespace salient::models::jinja
