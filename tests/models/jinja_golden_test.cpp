// Snippets and whole chat templates against what transformers' own environment renders (scripts/goldens/templates.py).
#include <gtest/gtest.h>

#include <filesystem>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/jinja/json_text.h"
#include "models/jinja/template.h"
#include "models/text/chat_template.h"

namespace salient::models {
namespace {

const std::filesystem::path kData = std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/templates";

TEST(JinjaGoldens, SnippetsRenderLikeJinja2) {
  const OrderedJson goldens = read_ordered_json_file(kData / "snippets.json");
  jinja::Variables variables;
  for (const auto& [name, value] : goldens["variables"].items()) variables.emplace_back(name, jinja::from_json(value));
  jinja::RenderOptions options;
  options.strftime_now = [](const std::string& format) {
    std::tm moment{};
    moment.tm_year = 124, moment.tm_mon = 6, moment.tm_mday = 26, moment.tm_wday = 5, moment.tm_yday = 207;
    char text[64];
    return std::string(text, std::strftime(text, sizeof text, format.c_str(), &moment));
  };
  size_t texts = 0, errors = 0;
  for (const OrderedJson& snippet : goldens["snippets"]) {
    const auto source = snippet["source"].get<std::string>();
    SCOPED_TRACE(source);
    try {
      const std::string text = jinja::Template::parse(source, "snippet").render(variables, options);
      ASSERT_TRUE(snippet.contains("text")) << "Jinja2 raises " << snippet["error"] << ", found: " << text;
      EXPECT_EQ(text, snippet["text"].get<std::string>());
      ++texts;
    } catch (const Error& error) {
      EXPECT_TRUE(snippet.contains("error")) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with("snippet:")) << error.what();
      EXPECT_NE(error.kind(), ErrorKind::kInternal);
      ++errors;
    }
  }
  EXPECT_GT(texts, 700u);
  EXPECT_GT(errors, 150u);
}

// scripts/goldens/templates_strict.py.
TEST(JinjaGoldens, TaskTemplatesAreAsStrictAsJinja2) {
  const OrderedJson goldens = read_ordered_json_file(kData / "strict.json");
  jinja::Variables variables;
  for (const auto& [name, value] : goldens["variables"].items()) variables.emplace_back(name, jinja::from_json(value));
  jinja::RenderOptions options;
  options.strict_undefined = true;
  size_t texts = 0, errors = 0;
  for (const OrderedJson& snippet : goldens["snippets"]) {
    const auto source = snippet["source"].get<std::string>();
    SCOPED_TRACE(source);
    try {
      const std::string text = jinja::Template::parse(source, "task.yaml", jinja::kTaskSyntax).render(variables, options);
      EXPECT_EQ(text, snippet.contains("text") ? snippet["text"].get<std::string>() : "an error");
      ++texts;
    } catch (const Error& error) {
      EXPECT_TRUE(snippet.contains("error")) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with("task.yaml:1: ")) << error.what();
      ++errors;
    }
  }
  EXPECT_GT(texts, 200u);
  EXPECT_GT(errors, 500u);
}

TEST(JinjaGoldens, ChatTemplatesRenderLikeTransformers) {
  const OrderedJson goldens = read_ordered_json_file(kData / "chats.json");
  size_t texts = 0, errors = 0;
  for (const OrderedJson& golden : goldens["renders"]) {
    const auto name = golden["template"].get<std::string>();
    const auto conversation = golden["case"].get<std::string>();
    SCOPED_TRACE(name + " / " + conversation + " / " + golden["variables"].dump());
    const ChatTemplate chat = ChatTemplate::parse(read_text_file(kData / (name + ".jinja")), name, goldens["special_tokens"]);
    ChatRenderOptions options;
    options.variables = golden["variables"];
    options.variables["strftime_now"] = "2024-07-26T13:45:00";
    try {
      const std::string text = chat.render(goldens["conversations"][conversation], options);
      ASSERT_TRUE(golden.contains("text")) << "transformers raises " << golden["error"] << ", found: " << text;
      EXPECT_EQ(text, golden["text"].get<std::string>());
      ++texts;
    } catch (const Error& error) {
      EXPECT_TRUE(golden.contains("error")) << error.what();
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
      ++errors;
    }
  }
  EXPECT_GT(texts, 120u);
  EXPECT_GT(errors, 40u);
}

}  // namespace
}  // namespace salient::models
