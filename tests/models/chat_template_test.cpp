#include "models/text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;

class ChatTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const { write_file(folder_ / name, text); }

  const fs::path folder_ = fs::temp_directory_path() /
                           fs::path("salient_chat_template_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) +
                                    ::testing::UnitTest::GetInstance()->current_test_info()->name());
  const OrderedJson messages_ = OrderedJson::parse(R"([{"role": "user", "content": "hi"}])");
};

ErrorKind kind_of(const std::function<void()>& body, const std::string& part) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    return error.kind();
  }
  ADD_FAILURE() << "no error";
  return ErrorKind::kInternal;
}

TEST_F(ChatTemplateTest, FileWinsOverConfigAndTokensComeFromConfig) {
  write(
      "tokenizer_config.json",
      R"({"chat_template": "from config", "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "add_bos_token": true, "pad_token": null})");
  EXPECT_EQ(ChatTemplate::from_folder(folder_).render(messages_), "from config");
  write("chat_template.jinja",
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token is defined }}{{ add_bos_token is defined }}");
  const ChatTemplate chat = ChatTemplate::from_folder(folder_);
  EXPECT_EQ(chat.render(messages_), "<s>hi</s>FalseFalse");
  EXPECT_EQ(chat.sha256(), sha256_hex(chat.source()));
}

TEST_F(ChatTemplateTest, NamedTemplates) {
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ eos_token }}"}]})");
  write("special_tokens_map.json", R"({"eos_token": "<e>"})");
  EXPECT_EQ(ChatTemplate::from_folder(folder_).render(messages_), "D");
  EXPECT_EQ(ChatTemplate::from_folder(folder_, "tool_use").render(messages_), "T<e>");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_, "rag"); }, "'rag'"), ErrorKind::kNotFound);
  fs::create_directories(folder_ / "additional_chat_templates");
  write("additional_chat_templates/rag.jinja", "R");
  EXPECT_EQ(ChatTemplate::from_folder(folder_, "rag").render(messages_), "R");
}

TEST_F(ChatTemplateTest, MissingAndBrokenFiles) {
  EXPECT_FALSE(ChatTemplate::exists_in(folder_));
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "found no chat template"), ErrorKind::kNotFound);
  write("tokenizer_config.json", R"({"eos_token": "x"})");
  EXPECT_FALSE(ChatTemplate::exists_in(folder_));
  std::string tokens = R"({"chat_template": "t")";
  for (int i = 0; i <= 1000; ++i) tokens += fmt::format(", \"t{}_token\": \"x\"", i);
  write("tokenizer_config.json", tokens + "}");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "more than 1000 keys that end in _token"),
            ErrorKind::kUnsupported);
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "chat_template: found number"), ErrorKind::kCorruption);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "\"template\""), ErrorKind::kCorruption);
  write("tokenizer_config.json", "[]");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "expected an object"), ErrorKind::kCorruption);
  write("tokenizer_config.json", "{");
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "tokenizer_config.json"), ErrorKind::kCorruption);
  write("tokenizer_config.json", R"({"chat_template": "\n{% if %}"})");
  EXPECT_TRUE(ChatTemplate::exists_in(folder_));
  EXPECT_EQ(kind_of([&] { ChatTemplate::from_folder(folder_); }, "tokenizer_config.json: chat_template:2: "),
            ErrorKind::kCorruption);
}

TEST_F(ChatTemplateTest, VariablesWinOverBuiltIns) {
  const ChatTemplate chat =
      ChatTemplate::parse("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ bos_token }}{{ x }}", "t",
                          OrderedJson{{"bos_token", "<s>"}});
  EXPECT_EQ(chat.render(messages_), "TrueTrueFalse<s>");
  ChatRenderOptions options;
  options.add_generation_prompt = true;
  options.variables = OrderedJson::parse(R"({"tools": [{"a": 1}], "bos_token": "B", "x": "y"})");
  EXPECT_EQ(chat.render(messages_, options), "FalseTrueTrueBy");
}

TEST_F(ChatTemplateTest, BadMessagesAndVariables) {
  const ChatTemplate chat = ChatTemplate::parse("{{ strftime_now('%A %j') }}", "t");
  EXPECT_EQ(kind_of([&] { chat.render(OrderedJson::object()); }, "expected a list"), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind_of([&] { chat.render(OrderedJson::parse(R"([{"role": "user"}, "x"])")); }, "message 2: found string"),
            ErrorKind::kInvalidArgument);
  ChatRenderOptions options;
  options.variables = OrderedJson::parse(R"({"tools": [1]})");
  EXPECT_EQ(kind_of([&] { chat.render(messages_, options); }, "'tools' must be a list"), ErrorKind::kInvalidArgument);
  options.variables = OrderedJson::parse(R"({"x": 18446744073709551615})");
  EXPECT_EQ(kind_of([&] { chat.render(messages_, options); }, "variable 'x'"), ErrorKind::kUnsupported);
  options.variables = OrderedJson::parse(R"({"strftime_now": "today"})");
  EXPECT_EQ(kind_of([&] { chat.render(messages_, options); }, "'strftime_now'"), ErrorKind::kInvalidArgument);
  options.variables = OrderedJson::parse(R"({"strftime_now": "2024-07-26"})");
  EXPECT_EQ(chat.render(messages_, options), "Friday 208");
}

// Expected texts written by hand from what the demo's template says.
TEST_F(ChatTemplateTest, DemoTemplate) {
  const ChatTemplate chat = ChatTemplate::from_folder(fs::path(SALIENT_SOURCE_DIR) / "models/demo");
  ChatRenderOptions options;
  options.add_generation_prompt = true;
  EXPECT_EQ(chat.render(OrderedJson::parse(R"([{"role": "user", "content": " 1 + 1? \n"}])"), options),
            "<|im_start|>system\nYou are a careful assistant. Think in short steps and end with the answer.<|im_end|>\n"
            "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      chat.render(OrderedJson::parse(
          R"([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}])")),
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n");
}

}  // namespace
}  // namespace salient::models
