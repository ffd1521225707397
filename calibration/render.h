// From a row of training data to the text that the model saw in training: row -> chat messages -> chat template.
//
// Known layouts, tried in this order; the first whose fields are there is taken:
//   messages         messages: [{role, content}, ...]                        OpenAI, TRL
//   sharegpt         conversations: [{from, value}, ...]; from: human, user, gpt, assistant, system, tool
//   multiple_choice  question, choices {text, label}, answerKey              ARC
//                    question, choices [text, ...], answer (number, letter)  MMLU
//                    the question, then "\nA. text" for each choice; the answer is the label
//   squad            context, question, answers {text}
//                    context "\n" question; the first answer, or "unanswerable"
//   alpaca           instruction, input, output
//                    instruction, "\n" input where it is not empty; output
//   pair             question/answer, problem/generated_solution, problem/solution, query/response, prompt/completion,
//                    prompt/response, input/output; or the two fields that FieldNames gives
//   text             text, or the field that FieldNames gives: already rendered, passes through untouched
#pragma once

#include <string>
#include <string_view>

#include "common/json.h"
#include "models/text/chat_template.h"

namespace salient::calibration {

// What the text holds: the system and user turns and the opening of the answer, as the model gets them when it is used; or the
// answer too.
enum class ContentMode { kPrompt, kConversation };

// "prompt" or "conversation". Errors: invalid argument.
ContentMode parse_content_mode(std::string_view name);
std::string_view to_string(ContentMode mode);

// Names of the user's question and the assistant's answer in a row; empty: found by layout.
struct FieldNames {
  std::string question;
  std::string answer;
  // Of a text that is ready. Where it is given, every row must have it, and the other two names mean nothing.
  std::string text = {};
};

enum class RowLayout { kMessages, kShareGpt, kMultipleChoice, kSquad, kAlpaca, kPair, kText };
std::string_view to_string(RowLayout layout);

// The layout of a data set and the names of its two fields.
struct RowShape {
  RowLayout layout = RowLayout::kPair;
  std::string question;
  std::string answer;
};

struct RenderOptions {
  ContentMode content = ContentMode::kConversation;
  std::string system_prompt;  // empty: no system turn, so that the template's own default stands, as in training
  FieldNames fields;
  OrderedJson template_variables = OrderedJson::object();  // e.g. {"enable_thinking": false}
};

// Decides by one row, usually the first. With given names the layouts that use a field called `question` take the given one
// instead. `where` names the row in errors. Errors: invalid argument: a given field is not there or the text's is no text, or no
// layout fits; all list the row's fields.
RowShape detect_shape(const Json& row, const FieldNames& fields, std::string_view where);

// The messages of a row: an optional system turn, then user and assistant turns. A system turn of the row's own wins over
// system_prompt. kPrompt leaves out the assistant turns at the end. Errors: invalid argument: a field is missing or no
// text (named, with `where`), a role is unknown, or there is no turn at all. Not for RowLayout::kText.
OrderedJson build_messages(const Json& row, const RowShape& shape, const RenderOptions& options, std::string_view where);

// What render_row gives to the template besides the messages: add_generation_prompt for kPrompt, the options' variables, a fixed
// clock, the row's tools. Errors: corruption: malformed tools.
models::ChatRenderOptions chat_render_options(const Json& row, const RowShape& shape, const RenderOptions& options,
                                              std::string_view where);

// The text of a row. kPrompt asks the template for the opening of the answer (add_generation_prompt). Without a template (nullptr)
// the contents are joined by "\n". RowLayout::kText passes through. A `tools` field (a list, or JSON text, whose key order is then
// kept) beside `messages` goes to the template. Errors: as build_messages and ChatTemplate::render, with `where`.
std::string render_row(const Json& row, const RowShape& shape, const RenderOptions& options,
                       const models::ChatTemplate* chat_template, std::string_view where);

}  // namespace salient::calibration
