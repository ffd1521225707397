// White space and undefined names of templates under other settings than those of chat templates. Expected texts are Jinja2 3.1's
// with Environment(undefined=StrictUndefined, keep_trailing_newline=True).
#include <gtest/gtest.h>

#include "models/jinja/template.h"
#include "support/thrown_error.h"

namespace salient::models::jinja {
namespace {

TEST(TaskSyntax, KeepsWhiteSpaceAroundBlocks) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n  {% if 1 %}\nb{% endif %}\n", "a\n  \nb\n"},
      {"x {# c #}\ny\n\n", "x \ny\n\n"},
      {"{% for i in [1,2] %}\n {{i}}\n{% endfor %}", "\n 1\n\n 2\n"},
      {"  {%- if 1 -%}  b {%- endif %}", "b"},
      {"{% raw %}\n{{x}}{% endraw %}\n", "\n{{x}}\n"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(Template::parse(source, "t", kTaskSyntax).render({}), expected) << source;
  EXPECT_EQ(Template::parse(cases[0].first, "t").render({}), "a\nb") << "chat templates drop it";
}

TEST(TaskSyntax, StrictUndefinedNamesWhatIsMissing) {
  RenderOptions strict;
  strict.strict_undefined = true;
  const Template print = Template::parse("a{{ answer }}", "t");
  EXPECT_EQ(print.render({}), "a");
  EXPECT_NE(test::error_of([&] { print.render({}, strict); }, ErrorKind::kInvalidArgument).message().find("'answer' is undefined"),
            std::string::npos);
  EXPECT_EQ(Template::parse("{{ answer if answer is defined else target }}", "t").render({{"target", Value("x")}}, strict), "x");
}

}  // namespace
}  // namespace salient::models::jinja
