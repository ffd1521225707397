#include "calibration/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

Json row_of(const char* text) { return Json::parse(text); }

RenderOptions prompt_options(const std::string& system = "") {
  RenderOptions options;
  options.content = ContentMode::kPrompt;
  options.system_prompt = system;
  return options;
}

OrderedJson messages_of(const Json& row, const RenderOptions& options = {}) {
  return build_messages(row, detect_shape(row, options.fields, "set:1"), options, "set:1");
}

template <typename Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::kInternal, "");
}

// transformers' apply_chat_template on the turns of the demo model's training script: tests/data/calibration/rendered.json.
TEST(RenderRow, EqualsTransformersInBothModes) {
  const Json golden = read_json_file(fs::path(SALIENT_SOURCE_DIR) / "tests/data/calibration/rendered.json");
  const auto chat_template = models::ChatTemplate::from_folder(kDemo);
  ASSERT_GE(golden["cases"].size(), 40u);
  for (const Json& item : golden["cases"]) {
    const Json& row = item["row"];
    const RowShape shape = detect_shape(row, {}, "set:1");
    EXPECT_EQ(to_string(shape.layout), item["layout"].get<std::string>()) << row;
    RenderOptions options;
    options.system_prompt = item["system_prompt"];
    EXPECT_EQ(render_row(row, shape, options, &chat_template, "set:1"), item["conversation"].get<std::string>());
    options.content = ContentMode::kPrompt;
    EXPECT_EQ(render_row(row, shape, options, &chat_template, "set:1"), item["prompt"].get<std::string>());
  }
}

TEST(BuildMessages, MultipleChoiceWithAListOfTexts) {
  const Json row = row_of(R"({"question": "2+2?", "choices": ["3", "4"], "answer": 1})");
  EXPECT_EQ(messages_of(row),
            OrderedJson::parse(R"([{"role":"user","content":"2+2?\nA. 3\nB. 4"},{"role":"assistant","content":"B"}])"));
  EXPECT_EQ(messages_of(row_of(R"({"question": "2+2?", "choices": ["3", "4"], "answer": "B"})"))[1]["content"], "B");
  EXPECT_THAT(error_of([] { messages_of(row_of(R"({"question": "q", "choices": ["3", "4"], "answer": 2})")); }).message(),
              HasSubstr("found 2, expected 0 to 1"));
}

TEST(BuildMessages, NumericLabelsOfArcStay) {
  const Json row = row_of(R"({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"})");
  EXPECT_EQ(messages_of(row)[0]["content"], "q\n1. x\n2. y");
  EXPECT_EQ(messages_of(row)[1]["content"], "2");
}

TEST(BuildMessages, BrokenChoicesAreErrors) {
  for (const char* text :
       {R"({"question": "q", "choices": {"text": ["x"], "label": ["1", "2"]}, "answerKey": "1"})",
        R"({"question": "q", "choices": {"text": [], "label": []}, "answerKey": "1"})",
        R"({"question": "q", "choices": {"label": ["A"]}, "answerKey": "1"})",
        R"({"question": "q", "choices": 7, "answerKey": "1"})", R"({"question": null, "choices": ["a"], "answerKey": "1"})"}) {
    EXPECT_EQ(error_of([&] { messages_of(row_of(text)); }).kind(), ErrorKind::kInvalidArgument) << text;
  }
}

TEST(BuildMessages, SystemTurns) {
  RenderOptions options;
  options.system_prompt = "S";
  EXPECT_EQ(messages_of(row_of(R"({"question": "q", "answer": "a"})"), options)[0],
            OrderedJson::parse(R"({"role":"system","content":"S"})"));
  const Json own = row_of(R"({"conversations": [{"from": "system", "value": "own"}, {"from": "human", "value": "q"}]})");
  EXPECT_EQ(messages_of(own, options)[0]["content"], "own");
  EXPECT_EQ(messages_of(own, options).size(), 2u);
}

TEST(BuildMessages, PromptLeavesOutTheLastAnswerOnly) {
  const Json row = row_of(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                                           {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]})");
  const OrderedJson messages = messages_of(row, prompt_options());
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[2]["content"], "c");
  EXPECT_EQ(messages_of(row).size(), 4u);
}

TEST(BuildMessages, PromptAndCompletionAsTurns) {
  const Json row =
      row_of(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(messages_of(row).size(), 2u);
  EXPECT_EQ(messages_of(row, prompt_options()).size(), 1u);
}

TEST(BuildMessages, NumbersAreTextAndNullIsNot) {
  EXPECT_EQ(messages_of(row_of(R"({"question": "q", "answer": 24})"))[1]["content"], "24");
  const Error error = error_of([] { messages_of(row_of(R"({"question": "q", "answer": null})")); });
  EXPECT_THAT(error.message(), HasSubstr("set:1: field 'answer': found JSON of type null, expected text"));
}

TEST(BuildMessages, UnknownRolesAndEmptyTurns) {
  EXPECT_THAT(error_of([] { messages_of(row_of(R"({"messages": [{"role": "king", "content": "x"}]})")); }).message(),
              HasSubstr("set:1: turn 1: role 'king' is unknown"));
  EXPECT_THAT(error_of([] { messages_of(row_of(R"({"messages": []})")); }).message(), HasSubstr("no turn"));
  EXPECT_THAT(error_of([] { messages_of(row_of(R"({"messages": ["hello"]})")); }).message(), HasSubstr("turn 1"));
  EXPECT_THAT(error_of([] { messages_of(row_of(R"({"messages": [{"role": "user"}]})")); }).message(),
              HasSubstr("no field 'content'"));
}

TEST(DetectShape, GivenFieldNames) {
  const Json row = row_of(R"({"frage": "q", "antwort": "a", "text": "t", "id": 1})");
  RenderOptions options;
  options.fields = {"frage", "antwort"};
  EXPECT_EQ(messages_of(row, options), OrderedJson::parse(R"([{"role":"user","content":"q"},{"role":"assistant","content":"a"}])"));
  options.fields = {"frage", ""};
  EXPECT_EQ(error_of([&] { messages_of(row, options); }).kind(), ErrorKind::kInvalidArgument);  // no answer field is known
  options.content = ContentMode::kPrompt;
  EXPECT_EQ(messages_of(row, options).size(), 1u);
}

TEST(DetectShape, GivenNamesKeepChoicesAndContext) {
  const FieldNames fields{"stem", "key"};
  EXPECT_EQ(detect_shape(row_of(R"({"stem": "q", "choices": ["a"], "key": "A"})"), fields, "x").layout, RowLayout::kMultipleChoice);
  EXPECT_EQ(detect_shape(row_of(R"({"stem": "q", "context": "c", "key": {"text": ["a"]}})"), fields, "x").layout,
            RowLayout::kSquad);
}

TEST(DetectShape, AGivenTextFieldWinsOverEveryLayout) {
  const FieldNames fields{"q", "a", "content"};
  const Json row = row_of(R"({"q": "x", "a": "y", "messages": [], "text": "t", "content": "c"})");
  const RowShape shape = detect_shape(row, fields, "x");
  EXPECT_EQ(shape.layout, RowLayout::kText);
  EXPECT_EQ(render_row(row, shape, {}, nullptr, "x"), "c");
  const Error absent = error_of([&] { detect_shape(row_of(R"({"text": "t", "id": 3})"), fields, "set.jsonl:4"); });
  EXPECT_EQ(absent.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(absent.message(), "set.jsonl:4: field 'content' is not there, expected the row's text; fields found: id, text");
  EXPECT_THAT(absent.hint(), HasSubstr("text_column"));
  EXPECT_THAT(error_of([&] { detect_shape(row_of(R"({"content": ["t"]})"), fields, "x"); }).message(),
              HasSubstr("field 'content' is JSON of type array"));
}

TEST(DetectShape, WrongNamesListTheFieldsFound) {
  const Error wrong = error_of([] {
    detect_shape(row_of(R"({"q": "x", "a": "y", "id": 3})"), {"question", "answer"}, "set.jsonl:4");
  });
  EXPECT_EQ(wrong.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(wrong.message(), "set.jsonl:4: no field 'question'; fields found: a, id, q");
  const Error unknown = error_of([] { detect_shape(row_of(R"({"q": "x", "a": "y"})"), {}, "set.jsonl:4"); });
  EXPECT_THAT(unknown.message(), HasSubstr("fields found: a, q"));
  EXPECT_FALSE(unknown.hint().empty());
  EXPECT_THAT(error_of([] { detect_shape(row_of("{}"), {}, "x"); }).message(), HasSubstr("fields found: none"));
  EXPECT_EQ(error_of([] { detect_shape(row_of("[1]"), {}, "x"); }).kind(), ErrorKind::kInvalidArgument);
}

TEST(RenderRow, ReadyTextPassesThrough) {
  const Json row = row_of(R"({"text": " <|im_start|>user\nq \n", "id": 4})");
  const RowShape shape = detect_shape(row, {}, "x");
  EXPECT_EQ(render_row(row, shape, prompt_options("S"), nullptr, "x"), " <|im_start|>user\nq \n");
}

TEST(RenderRow, WithoutATemplateTurnsAreJoined) {
  const Json row = row_of(R"({"question": "q", "answer": "a"})");
  RenderOptions options;
  options.system_prompt = "S";
  EXPECT_EQ(render_row(row, detect_shape(row, {}, "x"), options, nullptr, "x"), "S\nq\na");
  EXPECT_EQ(render_row(row, detect_shape(row, {}, "x"), prompt_options(), nullptr, "x"), "q");
  const Json parts = row_of(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}]}]})");
  EXPECT_EQ(render_row(parts, detect_shape(parts, {}, "x"), options, nullptr, "x"), "S\none");
}

TEST(RenderRow, ToolsReachTheTemplate) {
  const auto chat_template = models::ChatTemplate::parse("{{ tools[0].name }}{{ tools | tojson }}", "test");
  const Json row = row_of(R"({"messages": [{"role": "user", "content": "x"}], "tools": "[{\"name\":\"f\",\"args\":1}]"})");
  EXPECT_THAT(render_row(row, detect_shape(row, {}, "x"), {}, &chat_template, "x"), testing::StartsWith("f[{\"name\""));
}

TEST(ContentModeNames, RoundTrip) {
  for (const ContentMode mode : {ContentMode::kPrompt, ContentMode::kConversation})
    EXPECT_EQ(parse_content_mode(to_string(mode)), mode);
  EXPECT_THROW(parse_content_mode("chat"), Error);
}

}  // namespace
}  // namespace salient::calibration
