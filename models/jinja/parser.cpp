#include "models/jinja/parser.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/error.h"
#include "models/jinja/expression_parser.h"
#include "models/jinja/lexer.h"

namespace salient::models::jinja {

namespace {

using EndTags = std::vector<std::string_view>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view origin) : cursor_(std::move(tokens), origin), expressions_(cursor_) {}

  Body run() {
    Body body = parse_body({});
    expressions_.require_known();
    return body;
  }

 private:
  // Statements up to a tag of `ends`, whose name becomes the current token; with no `ends`, up to the end of the template.
  Body parse_body(const EndTags& ends) {
    const NestingGuard guard(cursor_);
    Body body;
    for (;;) {
      const Token& token = cursor_.current();
      switch (token.kind) {
        case TokenKind::kData:
          body.push_back({token.line, Text{token.text}});
          cursor_.next();
          break;
        case TokenKind::kVariableBegin: {
          const int line = token.line;
          cursor_.next();
          body.push_back({line, Output{expressions_.parse_tuple()}});
          cursor_.expect(TokenKind::kVariableEnd, "'}}'");
          break;
        }
        case TokenKind::kBlockBegin: {
          cursor_.next();
          const Token& tag = cursor_.current();
          if (tag.kind == TokenKind::kName && std::find(ends.begin(), ends.end(), tag.text) != ends.end()) return body;
          if (tag.kind != TokenKind::kName) cursor_.fail_expected("the name of a tag");
          parse_statement(body, ends);
          cursor_.expect(TokenKind::kBlockEnd, "'%}'");
          break;
        }
        default:
          if (!ends.empty()) cursor_.fail_expected(list_tags(ends));
          return body;
      }
    }
  }

  static std::string list_tags(const EndTags& ends) {
    std::string text;
    for (const std::string_view end : ends) text += fmt::format("{}'{{% {} %}}'", text.empty() ? "" : " or ", end);
    return text;
  }

  // The body of a block tag: an optional colon, the end of the tag, statements up to a tag of `ends`.
  Body parse_block(const EndTags& ends) {
    cursor_.skip_operator(":");
    cursor_.expect(TokenKind::kBlockEnd, "'%}'");
    return parse_body(ends);
  }
  Body parse_block_to(std::string_view end) {
    Body body = parse_block({end});
    cursor_.next();
    return body;
  }

  void parse_statement(Body& body, const EndTags& ends) {
    const Token tag = cursor_.next();
    const auto add = [&](auto node) { body.push_back({tag.line, std::move(node)}); };
    if (tag.text == "for") return add(parse_for());
    if (tag.text == "if") return add(parse_if());
    if (tag.text == "set") return parse_set(tag.line, body);
    if (tag.text == "macro") return add(parse_macro());
    if (tag.text == "call") return add(parse_call_block());
    if (tag.text == "filter") {
      ExpressionPtr filter = expressions_.parse_filter_chain(nullptr, true);
      return add(FilterBlock{std::move(filter), parse_block_to("endfilter")});
    }
    if (tag.text == "with") return add(parse_with());
    if (tag.text == "print") return parse_print(tag.line, body);
    if (tag.text == "generation") return add(Generation{outside_loops([&] { return parse_block_to("endgeneration"); })});
    if (tag.text == "break" || tag.text == "continue") {
      if (loop_depth_ == 0) cursor_.fail_at(tag.line, fmt::format("found '{}' outside of a loop", tag.text));
      if (tag.text == "break") return add(Break{});
      return add(Continue{});
    }
    constexpr std::array<std::string_view, 6> kOtherTags = {"include", "import", "from", "extends", "block", "autoescape"};
    if (std::find(kOtherTags.begin(), kOtherTags.end(), tag.text) != kOtherTags.end()) {
      cursor_.fail_unsupported(tag.line, fmt::format("the tag '{}' is not supported in chat templates", tag.text));
    }
    const bool closing = tag.text.starts_with("end") || tag.text == "else" || tag.text == "elif";
    if (closing)
      cursor_.fail_at(tag.line, fmt::format("found the tag '{}', expected {}", tag.text,
                                            ends.empty() ? "no closing tag here" : list_tags(ends)));
    cursor_.fail_unsupported(tag.line, fmt::format("the tag '{}' is unknown", tag.text));
  }

  // Break and continue do not reach out of macros, call blocks and generation blocks.
  template <typename Parse>
  Body outside_loops(Parse parse) {
    const int depth = std::exchange(loop_depth_, 0);
    Body body = parse();
    loop_depth_ = depth;
    return body;
  }

  For parse_for() {
    For loop;
    loop.target = parse_targets("in", false);
    ++for_nesting_;
    forbid_loop_name(loop.target);
    expressions_.note_store(loop.target);
    cursor_.expect_name("in");
    loop.iterable = expressions_.parse_tuple(false, "recursive");
    if (cursor_.skip_name("if")) loop.condition = expressions_.parse_expression();
    loop.recursive = cursor_.skip_name("recursive");
    ++loop_depth_;
    loop.body = parse_block({"endfor", "else"});
    --loop_depth_;
    if (cursor_.next().text == "else") loop.otherwise = parse_block_to("endfor");
    --for_nesting_;
    return loop;
  }

  void forbid_loop_name(const Target& target) {
    if (const auto* name = std::get_if<std::string>(&target.node); name != nullptr && *name == "loop") {
      cursor_.fail_at(target.line, "found an assignment to the special variable 'loop'");
    }
    if (const auto* targets = std::get_if<std::vector<Target>>(&target.node)) {
      for (const Target& one : *targets) forbid_loop_name(one);
    }
  }

  If parse_if() {
    If statement;
    const SoftScope soft(expressions_);
    for (;;) {
      ExpressionPtr test = expressions_.parse_tuple(false);
      Body body = parse_block({"elif", "else", "endif"});
      statement.branches.emplace_back(std::move(test), std::move(body));
      const Token end = cursor_.next();
      if (end.text == "elif") continue;
      if (end.text == "else") statement.otherwise = parse_block_to("endif");
      return statement;
    }
  }

  void parse_set(int line, Body& body) {
    Target target = parse_targets("", true);
    if (for_nesting_ > 0) forbid_loop_name(target);
    expressions_.note_store(target);
    if (cursor_.skip_operator("=")) {
      body.push_back({line, Set{std::move(target), expressions_.parse_tuple()}});
      return;
    }
    ExpressionPtr filter = expressions_.parse_filter_chain(nullptr, false);
    body.push_back({line, SetBlock{std::move(target), std::move(filter), parse_block_to("endset")}});
  }

  // A target, or a tuple of them separated by commas.
  Target parse_targets(std::string_view end, bool with_namespace) {
    const NestingGuard guard(cursor_);
    const int line = cursor_.current().line;
    std::vector<Target> targets;
    bool tuple = false;
    for (;;) {
      const Token& token = cursor_.current();
      const bool at_end = token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd || cursor_.is_operator(")") ||
                          (token.kind == TokenKind::kName && token.text == end);
      if (at_end && (tuple || !targets.empty())) break;
      targets.push_back(parse_target(with_namespace));
      if (!cursor_.skip_operator(",")) break;
      tuple = true;
    }
    if (!tuple) return std::move(targets.front());
    return {line, std::move(targets)};
  }

  Target parse_target(bool with_namespace) {
    const int line = cursor_.current().line;
    if (cursor_.skip_operator("(")) {
      Target inner = parse_targets("", false);
      cursor_.expect_operator(")");
      return inner;
    }
    if (cursor_.current().kind != TokenKind::kName) cursor_.fail_expected("the name of a variable to assign to");
    std::string name = cursor_.next().text;
    if (is_constant_name(name)) cursor_.fail_at(line, fmt::format("found an assignment to the constant '{}'", name));
    if (!with_namespace || !cursor_.skip_operator(".")) return {line, std::move(name)};
    return {line, Target::NamespaceAttribute{std::move(name), cursor_.expect(TokenKind::kName, "the name of an attribute").text}};
  }

  std::vector<Parameter> parse_parameters() {
    std::vector<Parameter> parameters;
    cursor_.expect_operator("(");
    while (!cursor_.is_operator(")")) {
      if (!parameters.empty()) cursor_.expect_operator(",");
      const Token name = cursor_.expect(TokenKind::kName, "the name of a parameter");
      if (is_constant_name(name.text)) cursor_.fail_at(name.line, fmt::format("found the constant '{}' as a parameter", name.text));
      for (const Parameter& other : parameters) {
        if (other.name == name.text) cursor_.fail_at(name.line, fmt::format("found the parameter '{}' twice", name.text));
      }
      ExpressionPtr fallback;
      if (cursor_.skip_operator("=")) {
        fallback = expressions_.parse_expression();
      } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
        cursor_.fail_at(name.line, fmt::format("found the parameter '{}' without a default behind one with a default", name.text));
      }
      parameters.push_back({name.text, std::move(fallback)});
    }
    cursor_.expect_operator(")");
    return parameters;
  }

  // The body of a macro, with the special names that it reads.
  void parse_macro_body(MacroDefinition& macro, std::string_view end, int line) {
    expressions_.begin_macro();
    macro.body = outside_loops([&] { return parse_block_to(end); });
    const SpecialNames names = expressions_.end_macro();
    macro.reads_caller = names.caller;
    macro.reads_varargs = names.varargs;
    macro.reads_kwargs = names.kwargs;
    for (const Parameter& parameter : macro.parameters) {
      if (parameter.name == "varargs") macro.reads_varargs = false;
      if (parameter.name == "kwargs") macro.reads_kwargs = false;
      if (parameter.name != "caller" || !names.caller) continue;
      if (parameter.fallback == nullptr)
        cursor_.fail_at(line, "found a parameter 'caller' without a default, expected none or one with a default");
      macro.reads_caller = false;  // an ordinary parameter that the call block fills
    }
  }

  MacroDefinition parse_macro() {
    MacroDefinition macro{};
    const Token name = cursor_.expect(TokenKind::kName, "the name of the macro");
    macro.name = name.text;
    macro.parameters = parse_parameters();
    parse_macro_body(macro, "endmacro", name.line);
    return macro;
  }

  CallBlock parse_call_block() {
    CallBlock block{};
    const int line = cursor_.current().line;
    if (cursor_.is_operator("(")) block.caller.parameters = parse_parameters();
    block.call = expressions_.parse_expression();
    if (!std::holds_alternative<Call>(block.call->node))
      cursor_.fail_at(line, "found no call in a call block, expected one as in '{% call name() %}'");
    block.caller.name = "caller";
    parse_macro_body(block.caller, "endcall", line);
    return block;
  }

  With parse_with() {
    With with;
    while (cursor_.current().kind != TokenKind::kBlockEnd) {
      if (!with.bindings.empty()) cursor_.expect_operator(",");
      Target target = parse_targets("", false);
      cursor_.expect_operator("=");
      with.bindings.emplace_back(std::move(target), expressions_.parse_expression());
    }
    with.body = parse_block_to("endwith");
    return with;
  }

  void parse_print(int line, Body& body) {
    for (bool first = true; cursor_.current().kind != TokenKind::kBlockEnd; first = false) {
      if (!first) cursor_.expect_operator(",");
      body.push_back({line, Output{expressions_.parse_expression()}});
    }
  }

  TokenCursor cursor_;
  ExpressionParser expressions_;
  int loop_depth_ = 0;   // loops that break and continue can leave here
  int for_nesting_ = 0;  // loops around here, also through macros
};

}  // namespace

Body parse_template(std::string_view source, std::string_view origin, const Syntax& syntax) {
  return Parser(tokenize(source, origin, syntax), origin).run();
}

}  // namespace salient::models::jinja
