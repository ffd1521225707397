// `salient generate` as a user runs it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>

#include "common/json.h"
#include "eval/language_model.h"
#include "models/decoder/generation.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::HasSubstr;

const std::string kModel = test::kDemoModel.string();

class Generate : public ::testing::Test {
 protected:
  test::ProgramResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"generate", kModel});
    return test::run_program(std::move(arguments), folder_.path());
  }
  Json json(std::vector<std::string> arguments) const {
    arguments.push_back("--json");
    const test::ProgramResult result = run(std::move(arguments));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "output");
  }
  std::string error_of(std::vector<std::string> arguments, int exit_code = 2) const {
    const test::ProgramResult result = run(std::move(arguments));
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    return result.err;
  }
  test::TemporaryFolder folder_;
};

// tests/data/eval/demo_model.json: lm-evaluation-harness on transformers, greedy, 256 new tokens.
TEST_F(Generate, GreedyTextEqualsTransformers) {
  const Json golden = read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/data/eval/demo_model.json");
  std::vector<std::string> arguments = {"--stop", "Question:", "--stop", "</s>"};
  for (const Json& pair : golden.at("generations")) {
    arguments.push_back("--prompt");
    arguments.push_back(pair.at("prompt"));
  }
  const Json output = json(arguments);
  ASSERT_EQ(output.size(), golden.at("generations").size());
  for (size_t i = 0; i < output.size(); ++i) {
    EXPECT_EQ(output[i].at("prompt"), golden.at("generations")[i].at("prompt"));
    EXPECT_EQ(output[i].at("text"), golden.at("generations")[i].at("text"));
  }
}

TEST_F(Generate, SamplesBySeedAndPlace) {
  const auto texts = [&](const std::vector<std::string>& prompts, const std::string& seed) {
    std::vector<std::string> arguments = {"--temperature",    "1.2", "--top-k", "50", "--top-p", "0.95",
                                          "--max-new-tokens", "16",  "--seed",  seed};
    for (const std::string& prompt : prompts) {
      arguments.push_back("--prompt");
      arguments.push_back(prompt);
    }
    std::vector<std::string> all;
    for (const Json& one : json(arguments)) all.push_back(one.at("text"));
    return all;
  };
  const auto first = texts({"There are three", "There are three", "Which of these"}, "7");
  EXPECT_EQ(texts({"There are three", "There are three", "Which of these"}, "7"), first);
  EXPECT_NE(first[0], first[1]);
  EXPECT_EQ(texts({"There are three"}, "7")[0], first[0]);
  EXPECT_NE(texts({"There are three"}, "8")[0], first[0]);
}

TEST_F(Generate, SaysHowAnswersEnded) {
  const Json output = json({"--prompt", "There are three", "--max-new-tokens", "5"});
  EXPECT_EQ(output[0].at("finish"), "length");
  EXPECT_EQ(output[0].at("new_tokens"), 5);
  EXPECT_EQ(output[0].at("prompt_tokens"), 3);
  const std::string text = output[0].at("text");
  const std::string stop = text.substr(text.size() / 2, 2);
  const Json stopped = json({"--prompt", "There are three", "--max-new-tokens", "5", "--stop", stop});
  EXPECT_EQ(stopped[0].at("finish"), "stop");
  EXPECT_EQ(stopped[0].at("text"), text.substr(0, text.find(stop)));
}

TEST_F(Generate, ReadsPromptsFromFiles) {
  test::write_text(folder_.path() / "p.txt", "There are three\n\nWhich of these\n");
  test::write_text(folder_.path() / "p.jsonl",
                   "{\"prompt\": \"There are three\"}\n{\"question\": \"Which of these\"}\n"
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}\n");
  const Json lines = json({"--prompts", "p.txt", "--max-new-tokens", "6"});
  const Json rows = json({"--prompts", "p.jsonl", "--max-new-tokens", "6"});
  ASSERT_EQ(lines.size(), 2u);
  ASSERT_EQ(rows.size(), 3u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(lines[i].at("text"), rows[i].at("text"));
  EXPECT_EQ(rows[2].at("prompt"), "Hello");
  EXPECT_EQ(rows[2].at("prompt_tokens"),
            json({"--prompt", "Hello", "--apply-chat-template", "--max-new-tokens", "6"})[0].at("prompt_tokens"));
  // Batches hold at most 16 prompts: numbers go on in the next one.
  std::string many;
  for (int i = 0; i < 18; ++i) many += "There are three\n";
  test::write_text(folder_.path() / "many.txt", many);
  const Json drawn = json({"--prompts", "many.txt", "--max-new-tokens", "8", "--temperature", "1.5"});
  std::set<std::string> different;
  for (const Json& one : drawn) different.insert(one.at("text").get<std::string>());
  EXPECT_GT(different.size(), 15u);
}

TEST_F(Generate, ChatTemplatesFrameThePrompt) {
  const eval::LanguageModel model = eval::load_language_model(kModel);
  models::ChatRenderOptions render;
  render.add_generation_prompt = true;
  const OrderedJson messages = OrderedJson::parse(R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hello"}])");
  const auto ids = eval::encode_text(model, model.chat_template->render(messages, render));
  const auto expected = models::generate(model.decoder, {ids}, {.max_new_tokens = 8, .stop_ids = model.stop_ids})[0];
  const Json output = json({"--prompt", "Hello", "--apply-chat-template", "--system-prompt", "Be brief.", "--max-new-tokens", "8"});
  EXPECT_EQ(output[0].at("prompt_tokens"), ids.size());
  EXPECT_EQ(output[0].at("text"), model.tokenizer.decode(expected.ids, true));
}

TEST_F(Generate, PlainOutputIsTheText) {
  const std::string text = json({"--prompt", "There are three", "--max-new-tokens", "6"})[0].at("text");
  EXPECT_EQ(run({"--prompt", "There are three", "--max-new-tokens", "6"}).out, text + "\n");
  const std::string both = run({"--prompt", "There are three", "--prompt", "There are three", "--max-new-tokens", "6"}).out;
  EXPECT_EQ(both, "--- 1: There are three\n" + text + "\n--- 2: There are three\n" + text + "\n");
}

TEST_F(Generate, RefusesWhatMakesNoSense) {
  EXPECT_THAT(error_of({}), HasSubstr("no prompt is given"));
  EXPECT_THAT(error_of({"--prompt", "a", "--temperature", "-1"}), HasSubstr("--temperature: found '-1'"));
  EXPECT_THAT(error_of({"--prompt", "a", "--temperature", "nan"}), HasSubstr("--temperature"));
  EXPECT_THAT(error_of({"--prompt", "a", "--top-p", "0"}), HasSubstr("--top-p"));
  EXPECT_THAT(error_of({"--prompt", "a", "--top-p", "1.5"}), HasSubstr("--top-p"));
  EXPECT_THAT(error_of({"--prompt", "a", "--top-k", "many"}), HasSubstr("--top-k"));
  EXPECT_THAT(error_of({"--prompt", "a", "--max-new-tokens", "0"}), HasSubstr("--max-new-tokens"));
  EXPECT_THAT(error_of({"--prompt", "a", "--system-prompt", "b"}), HasSubstr("--apply-chat-template"));
  EXPECT_THAT(error_of({"--prompt", "a", "--stop", ""}), HasSubstr("stop string"));
  EXPECT_THAT(error_of({"another", "--prompt", "a"}), HasSubstr("2 models"));
  EXPECT_THAT(error_of({"--prompt", "a", "--record", "r.txt"}), HasSubstr(".jsonl"));
  error_of({"--prompts", "missing.txt"}, 3);
  test::write_text(folder_.path() / "p.jsonl", "{\"other\": 1}\n");
  EXPECT_THAT(error_of({"--prompts", "p.jsonl"}, 4), HasSubstr("p.jsonl:1"));
}

// What a terminal shows is the text that a file would get. That it comes piece by piece is for text_stream_test and the on_token
// tests of generation: how many reads it takes here depends on who is scheduled when.
TEST_F(Generate, ATerminalShowsTheSameText) {
  const std::string text = json({"--prompt", "There are three", "--max-new-tokens", "40"})[0].at("text");
  const std::string stop = text.substr(text.size() - 6, 4);
  for (const std::string& wanted : {std::string(), stop}) {
    std::vector<std::string> words = {SALIENT_PROGRAM, "generate", kModel, "--prompt", "There are three", "--max-new-tokens", "40"};
    if (!wanted.empty()) words.insert(words.end(), {"--stop", wanted});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int terminal = -1;
    const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    std::string shown;
    char buffer[4096];
    for (ssize_t count; (count = ::read(terminal, buffer, sizeof(buffer))) > 0;) shown.append(buffer, static_cast<size_t>(count));
    ::close(terminal);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    std::string plain;
    for (const char c : shown) plain += c == '\r' ? std::string() : std::string(1, c);  // the terminal writes \n as \r\n
    EXPECT_EQ(plain, (wanted.empty() ? text : text.substr(0, text.find(wanted))) + "\n");
  }
}

}  // namespace
}  // namespace salient::pipeline
