#include "calibration/response_spans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "calibration/token_offsets.h"
#include "common/error.h"
#include "common/file.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kRoot = SALIENT_SOURCE_DIR;

const models::Tokenizer& tokenizer() {
  static const models::Tokenizer demo = models::Tokenizer::from_folder(kRoot / "models/demo");
  return demo;
}

OrderedJson chat(std::initializer_list<std::pair<const char*, const char*>> turns) {
  OrderedJson messages = OrderedJson::array();
  for (const auto& [role, content] : turns) messages.push_back(OrderedJson{{"role", role}, {"content", content}});
  return messages;
}

std::vector<std::string> answers(const RenderedConversation& rendered) {
  std::vector<std::string> texts;
  for (const TextSpan& span : rendered.responses) texts.push_back(rendered.text.substr(span.begin, span.end - span.begin));
  return texts;
}

// Masks of transformers and of the tokenizers library: scripts/goldens/calibration_masks.py.
TEST(ResponseSpans, MasksAreThoseOfTransformers) {
  const OrderedJson golden = read_ordered_json_file(kRoot / "tests/data/calibration/response_masks.json");
  std::map<std::string, ResponseFinder> finders;
  finders.emplace("generation", ResponseFinder::from_source(golden["generation_template"].get<std::string>(), "generation"));
  finders.emplace("smol", ResponseFinder::from_source(read_text_file(kRoot / "tests/data/templates/smol.jinja"), "smol"));
  finders.emplace("demo", ResponseFinder::from_folder(kRoot / "models/demo"));
  ASSERT_EQ(golden["cases"].size(), 20u);
  models::ChatRenderOptions options;
  options.variables["strftime_now"] = "2026-11-21";  // the day on which transformers rendered them
  for (const OrderedJson& item : golden["cases"]) {
    const auto name = item["template"].get<std::string>();
    SCOPED_TRACE(name + " " + item["messages"].dump());
    const RenderedConversation rendered = finders.at(name).render(item["messages"], options, "case");
    ASSERT_EQ(rendered.text, item["text"].get<std::string>());
    const auto ids = tokenizer().encode(rendered.text, false);
    ASSERT_EQ(ids, item["ids"].get<std::vector<models::TokenId>>());
    const auto expected = item["mask"].get<std::vector<uint8_t>>();
    auto found = mask_tokens(rendered.text, ids, rendered.responses, tokenizer(), false, "case");
    // transformers ends a span at the first token of its last character; the other bytes of an emoji belong to it as well.
    for (size_t i = 1; i < found.size(); ++i) {
      if (found[i] == 1 && expected[i] == 0 && tokenizer().decode(std::span(&ids[i], 1), false) == "\xEF\xBF\xBD") found[i] = 0;
    }
    EXPECT_EQ(found, expected);
  }
}

TEST(ResponseSpans, TheEndOfTheTurnIsPartOfTheAnswer) {
  const auto demo = ResponseFinder::from_folder(kRoot / "models/demo");
  const auto rendered = demo.render(chat({{"user", "Hi"}, {"assistant", " Ho "}, {"user", "Hi"}, {"assistant", "Ho"}}), {}, "row");
  EXPECT_THAT(answers(rendered), ElementsAre("Ho<|im_end|>", "Ho<|im_end|>"));
  models::ChatRenderOptions prompt;
  prompt.add_generation_prompt = true;
  EXPECT_THAT(answers(demo.render(chat({{"user", "Hi"}}), prompt, "row")), ElementsAre());
}

// Like Qwen3: only the last answer has a thinking part, so that a conversation is no beginning of a longer one.
constexpr std::string_view kThinking =
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}[A]{% if loop.last %}<think></think>{% endif %}{{ m.content | trim }}[E]\n"
    "{%- else %}[U]{{ m.content }}[E]\n{%- endif %}{%- endfor %}{%- if add_generation_prompt %}[A]{% endif %}";

TEST(ResponseSpans, AnswersThatTheTemplateRewritesLaterAreStillFound) {
  const auto finder = ResponseFinder::from_source(std::string(kThinking), "thinking");
  const auto rendered =
      finder.render(chat({{"user", "q"}, {"assistant", " one "}, {"user", "r"}, {"assistant", "two"}}), {}, "row");
  EXPECT_EQ(rendered.text, "[U]q[E][A]one[E][U]r[E][A]<think></think>two[E]");
  EXPECT_THAT(answers(rendered), ElementsAre("one[E]", "<think></think>two[E]"));
}

TEST(ResponseSpans, GenerationTagsAreFoundAmongSpaces) {
  const std::string spaces(30'000, ' ');
  const auto spaced = ResponseFinder::from_source("{%" + spaces + "set x = 1 %}{% for m in messages %}{%-" + spaces + "generation" +
                                                      spaces + "-%}{{ m.content }}{% endgeneration\t%};{% endfor %}",
                                                  "spaced");
  const auto rendered = spaced.render(chat({{"user", "q"}, {"assistant", "one"}}), {}, "row");
  EXPECT_EQ(rendered.text, "q;one;");
  EXPECT_THAT(answers(rendered), ElementsAre("q", "one"));
}

TEST(ResponseSpans, WhereNothingFitsThereIsAnError) {
  const auto finder = ResponseFinder::from_source(
      "{%- for m in messages %}[{{ m.content | upper | replace('A', '') | reverse }}{{ messages | length }}]{%- endfor %}",
      "reversing");
  try {
    finder.render(chat({{"user", "q"}, {"assistant", "answer"}}), {}, "train.jsonl:3");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.message(), HasSubstr("train.jsonl:3: the chat template renders turn 2 (assistant)"));
    EXPECT_THAT(error.hint(), HasSubstr("generation"));
  }
}

// White space control around the tags must work as without marks.
TEST(ResponseSpans, GenerationTagsKeepTheirWhiteSpaceControl) {
  for (const char* source : {
           "{% for m in messages %}\n  {%- generation -%}\n  {{ m.content }}  {%- endgeneration -%}\n|{% endfor %}",
           "\n{% for m in messages %}\n  {% generation %}\n  {{ m.content }}\n  {% endgeneration %}\n|{% endfor %}",
           "{% for m in messages %}{%generation%}{{ m.content }}{%endgeneration%}{{ '\n' }}{% endfor %}",
       }) {
    SCOPED_TRACE(source);
    const auto rendered =
        ResponseFinder::from_source(source, "tags").render(chat({{"assistant", "x"}, {"assistant", "yz"}}), {}, "row");
    ASSERT_EQ(rendered.responses.size(), 2u);
    EXPECT_THAT(answers(rendered)[0], HasSubstr("x"));
    EXPECT_THAT(answers(rendered)[1], HasSubstr("yz"));
    EXPECT_THAT(answers(rendered)[1], testing::Not(HasSubstr("|")));
  }
}

// Every template of the template tests: each answer with its own end, and the same answers in the rendered text alone where its
// marks tell.
TEST(ResponseSpans, TemplatesOfManyFamilies) {
  const OrderedJson tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const OrderedJson messages =
      chat({{"user", "Question one"}, {"assistant", "Answer one"}, {"user", "Question two"}, {"assistant", "Answer two"}});
  models::ChatRenderOptions options;
  options.variables["strftime_now"] = "2024-07-26";
  size_t templates = 0;
  for (const auto& entry : fs::directory_iterator(kRoot / "tests/data/templates")) {
    if (entry.path().extension() != ".jinja") continue;
    SCOPED_TRACE(entry.path().filename());
    ++templates;
    const auto finder = ResponseFinder::from_source(read_text_file(entry.path()), "template", tokens);
    const RenderedConversation rendered = finder.render(messages, options, "row");
    const auto found = answers(rendered);
    ASSERT_EQ(found.size(), 2u);
    const size_t at = found[0].find("Answer one");
    ASSERT_NE(at, std::string::npos);
    const std::string closing = found[0].substr(at + 10);
    EXPECT_GT(closing.size(), 3u);
    EXPECT_THAT(closing, testing::Not(HasSubstr("Question")));
    EXPECT_THAT(found[1], HasSubstr("Answer two" + closing));
    const auto marked = answers({rendered.text, finder.in_text(rendered.text)});
    ASSERT_EQ(marked.size(), 2u);
    EXPECT_THAT(marked[0], testing::StartsWith(found[0].substr(at, 12)));
    EXPECT_THAT(marked[1], HasSubstr("Answer two"));
    EXPECT_THAT(marked[0] + marked[1], testing::Not(HasSubstr("Question")));
  }
  EXPECT_GE(templates, 14u);
}

TEST(ResponseSpans, MarksInReadyText) {
  const auto demo = ResponseFinder::from_folder(kRoot / "models/demo");
  const std::string text =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>"
      "assistant\nB";
  EXPECT_THAT(answers({text, demo.in_text(text)}), ElementsAre("Ho<|im_end|>", "B"));
  EXPECT_TRUE(demo.in_text("plain prose").empty());
  const std::string llama = "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>";
  EXPECT_THAT(answers({llama, demo.in_text(llama)}), ElementsAre("Yes<|eot_id|>"));
}

TEST(TokenOffsets, SpansCoverTheTextInOrder) {
  for (const std::string text :
       {"Hello  there\n\n world",
        "caf\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9",
        "<|im_start|>a<|im_end|>\n", ""}) {
    const auto ids = tokenizer().encode(text, false);
    const auto spans = token_spans(text, ids, tokenizer());
    ASSERT_TRUE(spans.has_value());
    ASSERT_EQ(spans->size(), ids.size());
    std::string joined;
    for (size_t i = 0; i < spans->size(); ++i) {
      const TextSpan span = (*spans)[i];
      if (i == 0 || !((*spans)[i - 1] == span)) joined += text.substr(span.begin, span.end - span.begin);
    }
    EXPECT_EQ(joined, text);
  }
}

TEST(TokenOffsets, AForeignTextHasNone) {
  const auto ids = tokenizer().encode("Hello there", false);
  EXPECT_FALSE(token_spans("Goodbye there", ids, tokenizer()).has_value());
  EXPECT_THROW(mask_tokens("Goodbye there", ids, {{0, 7}}, tokenizer(), false, "row"), Error);
}

TEST(TokenOffsets, ATokenAcrossTheBorderCounts) {
  const std::string text = "Hello there";
  const auto ids = tokenizer().encode(text, false);
  const auto spans = token_spans(text, ids, tokenizer());
  ASSERT_TRUE(spans.has_value());
  for (size_t begin = 0; begin < text.size(); ++begin) {
    const auto mask = mask_tokens(text, ids, {{begin, text.size()}}, tokenizer(), false, "row");
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(mask[i], (*spans)[i].end > begin ? 1 : 0);
  }
}

}  // namespace
}  // namespace salient::calibration
