#include "calibration/render.h"

#include <algorithm>
#include <vector>

#include "common/error.h"

namespace salient::calibration {
namespace {

struct PairRow {
  std::string_view question;
  std::string_view answer;
};
constexpr PairRow kPairs[] = {
    {"question", "answer"}, {"problem", "generated_solution"}, {"problem", "solution"},
    {"query", "response"},  {"prompt", "completion"},          {"prompt", "response"},
    {"input", "output"},
};

struct RoleRow {
  std::string_view found;
  std::string_view role;
};
constexpr RoleRow kRoles[] = {
    {"system", "system"},   {"user", "user"}, {"human", "user"},       {"assistant", "assistant"}, {"gpt", "assistant"},
    {"model", "assistant"}, {"tool", "tool"}, {"observation", "tool"}, {"function", "tool"},       {"developer", "developer"},
};

struct LayoutRow {
  RowLayout layout;
  std::string_view name;
};
constexpr LayoutRow kLayouts[] = {
    {RowLayout::kMessages, "messages"}, {RowLayout::kShareGpt, "sharegpt"}, {RowLayout::kMultipleChoice, "multiple_choice"},
    {RowLayout::kSquad, "squad"},       {RowLayout::kAlpaca, "alpaca"},     {RowLayout::kPair, "pair"},
    {RowLayout::kText, "text"},
};

std::string field_list(const Json& row) {
  std::vector<std::string> names;
  for (const auto& [name, value] : row.items()) names.push_back(name.substr(0, 40));
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

const Json& field(const Json& row, const std::string& name, std::string_view where) {
  const auto found = row.find(name);
  if (found == row.end()) fail(ErrorKind::kInvalidArgument, "{}: no field '{}'; fields found: {}", where, name, field_list(row));
  return *found;
}

std::string text_of(const Json& value, std::string_view name, std::string_view where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  fail(ErrorKind::kInvalidArgument, "{}: field '{}': found JSON of type {}, expected text", where, name, value.type_name());
}

std::string text_field(const Json& row, const std::string& name, std::string_view where) {
  return text_of(field(row, name, where), name, where);
}

void check_text_field(const Json& row, const std::string& name, std::string_view where) {
  const auto found = row.find(name);
  if (found != row.end() && found->is_string()) return;
  const std::string what = found == row.end() ? "is not there" : fmt::format("is JSON of type {}", found->type_name());
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{}: field '{}' {}, expected the row's text; fields found: {}", where, name, what, field_list(row)))
      .with_hint(
          "name the text's field as it is in the file (text_column), or no field: conversations and questions with answers are "
          "known by "
          "their layout");
}

bool has_list(const Json& row, const char* name) { return row.contains(name) && row[name].is_array(); }

OrderedJson message(std::string_view role, std::string content) {
  OrderedJson result = OrderedJson::object();
  result["role"] = role;
  result["content"] = std::move(content);
  return result;
}

std::string role_of(const Json& turn, const char* name, std::string_view where) {
  const std::string found = text_field(turn, name, where);
  for (const RoleRow& row : kRoles)
    if (row.found == found) return std::string(row.role);
  fail(ErrorKind::kInvalidArgument, "{}: role '{}' is unknown, expected system, user (human), assistant (gpt) or tool", where,
       found);
}

// Turns as they stand in the row: "role" and "content" (which may be a list of parts, and comes with tool calls and the like), or
// ShareGPT's "from" and "value".
OrderedJson listed_turns(const Json& turns, std::string_view where) {
  OrderedJson messages = OrderedJson::array();
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string here = fmt::format("{}: turn {}", where, i + 1);
    if (!turns[i].is_object())
      fail(ErrorKind::kInvalidArgument, "{}: found JSON of type {}, expected an object", here, turns[i].type_name());
    if (turns[i].contains("from")) {
      messages.push_back(message(role_of(turns[i], "from", here), text_field(turns[i], "value", here)));
      continue;
    }
    OrderedJson turn = OrderedJson::object();
    turn["role"] = role_of(turns[i], "role", here);
    for (const auto& [name, value] : turns[i].items())
      if (name != "role") turn[name] = value;
    const Json& content = turns[i].value("content", Json());
    if (!content.is_string() && !content.is_array() && !turns[i].contains("tool_calls")) text_field(turns[i], "content", here);
    messages.push_back(std::move(turn));
  }
  return messages;
}

struct Turns {
  std::string user;
  std::string assistant;  // filled for kConversation only
};

// Choice texts and labels of {"text": [...], "label": [...]} or of a plain list, labelled A, B, C ...
std::vector<std::pair<std::string, std::string>> choices_of(const Json& row, std::string_view where) {
  const Json& choices = field(row, "choices", where);
  const Json& texts = choices.is_object() ? field(choices, "text", where) : choices;
  std::vector<std::pair<std::string, std::string>> result;
  if (!texts.is_array() || texts.empty()) {
    fail(ErrorKind::kInvalidArgument, "{}: field 'choices': expected {{\"text\": [...], \"label\": [...]}} or a list of texts",
         where);
  }
  for (size_t i = 0; i < texts.size(); ++i)
    result.emplace_back(std::string(1, static_cast<char>('A' + i % 26)), text_of(texts[i], "choices", where));
  if (!choices.is_object()) return result;
  const Json& labels = field(choices, "label", where);
  if (!labels.is_array() || labels.size() != texts.size()) {
    fail(ErrorKind::kInvalidArgument, "{}: field 'choices': {} texts, but {} labels", where, texts.size(), labels.size());
  }
  for (size_t i = 0; i < labels.size(); ++i) result[i].first = text_of(labels[i], "choices.label", where);
  return result;
}

Turns multiple_choice_turns(const Json& row, const RowShape& shape, bool with_answer, std::string_view where) {
  Turns turns{text_field(row, shape.question, where), ""};
  const auto choices = choices_of(row, where);
  for (const auto& [label, text] : choices) turns.user += fmt::format("\n{}. {}", label, text);
  if (!with_answer) return turns;
  const Json& answer = field(row, shape.answer, where);
  if (row["choices"].is_array() && answer.is_number_integer()) {
    const auto index = answer.get<int64_t>();
    if (index < 0 || index >= static_cast<int64_t>(choices.size())) {
      fail(ErrorKind::kInvalidArgument, "{}: field '{}': found {}, expected 0 to {}", where, shape.answer, index,
           choices.size() - 1);
    }
    turns.assistant = choices[static_cast<size_t>(index)].first;
  } else {
    turns.assistant = text_of(answer, shape.answer, where);
  }
  return turns;
}

std::string squad_answer(const Json& row, const RowShape& shape, std::string_view where) {
  const Json& answers = field(row, shape.answer, where);
  if (answers.is_string()) return answers.get<std::string>();
  const Json& texts = answers.is_object() ? field(answers, "text", where) : answers;
  if (texts.is_string()) return texts.get<std::string>();
  if (!texts.is_array()) fail(ErrorKind::kInvalidArgument, "{}: field '{}': expected {{\"text\": [...]}}", where, shape.answer);
  if (texts.empty()) return "unanswerable";
  return texts[0].is_object() ? text_field(texts[0], "text", where) : text_of(texts[0], shape.answer, where);
}

Turns turns_of(const Json& row, const RowShape& shape, bool with_answer, std::string_view where) {
  if (shape.layout == RowLayout::kMultipleChoice) return multiple_choice_turns(row, shape, with_answer, where);
  Turns turns{text_field(row, shape.question, where), ""};
  if (shape.layout == RowLayout::kSquad) {
    turns.user = text_field(row, "context", where) + "\n" + turns.user;
    if (with_answer) turns.assistant = squad_answer(row, shape, where);
    return turns;
  }
  if (shape.layout == RowLayout::kAlpaca) {
    const Json& input = row.value("input", Json());
    const std::string text = input.is_null() ? "" : text_of(input, "input", where);
    if (!text.empty()) turns.user += "\n" + text;
  }
  if (with_answer) turns.assistant = text_field(row, shape.answer, where);
  return turns;
}

// Contents one after the other, for models without a template.
std::string join_contents(const OrderedJson& messages) {
  std::string result;
  for (const OrderedJson& turn : messages) {
    std::string content;
    if (turn.contains("content") && turn["content"].is_string()) content = turn["content"].get<std::string>();
    if (turn.contains("content") && turn["content"].is_array()) {
      for (const OrderedJson& part : turn["content"])
        if (part.is_object() && part.contains("text") && part["text"].is_string()) content += part["text"].get<std::string>();
    }
    if (!result.empty() && !content.empty()) result += "\n";
    result += content;
  }
  return result;
}

}  // namespace

ContentMode parse_content_mode(std::string_view name) {
  if (name == "prompt") return ContentMode::kPrompt;
  if (name == "conversation") return ContentMode::kConversation;
  fail(ErrorKind::kInvalidArgument, "calibration content: found '{}', expected 'prompt' or 'conversation'", name);
}

std::string_view to_string(ContentMode mode) { return mode == ContentMode::kPrompt ? "prompt" : "conversation"; }

std::string_view to_string(RowLayout layout) {
  for (const LayoutRow& row : kLayouts)
    if (row.layout == layout) return row.name;
  return "unknown";
}

RowShape detect_shape(const Json& row, const FieldNames& fields, std::string_view where) {
  if (!row.is_object()) fail(ErrorKind::kInvalidArgument, "{}: found JSON of type {}, expected an object", where, row.type_name());
  if (!fields.text.empty()) {
    check_text_field(row, fields.text, where);
    return {RowLayout::kText, fields.text, ""};
  }
  if (!fields.question.empty()) field(row, fields.question, where);
  if (!fields.answer.empty()) field(row, fields.answer, where);
  const auto name = [](const std::string& given, std::string_view usual) { return given.empty() ? std::string(usual) : given; };
  const bool given = !fields.question.empty() || !fields.answer.empty();

  if (!given && has_list(row, "messages")) return {RowLayout::kMessages, "messages", "messages"};
  if (!given && has_list(row, "conversations")) return {RowLayout::kShareGpt, "conversations", "conversations"};
  if (!given && has_list(row, "conversation")) return {RowLayout::kShareGpt, "conversation", "conversation"};
  if (has_list(row, "prompt") && name(fields.question, "prompt") == "prompt")
    return {RowLayout::kMessages, "prompt", name(fields.answer, "completion")};

  const std::string question = name(fields.question, "question");
  if (row.contains(question) && row.contains("choices") && !row["choices"].is_string()) {
    return {RowLayout::kMultipleChoice, question, name(fields.answer, row.contains("answerKey") ? "answerKey" : "answer")};
  }
  if (row.contains(question) && row.contains("context") && row.contains(name(fields.answer, "answers"))) {
    return {RowLayout::kSquad, question, name(fields.answer, "answers")};
  }
  const std::string instruction = name(fields.question, "instruction");
  if (instruction == "instruction" && row.contains(instruction)) {
    return {RowLayout::kAlpaca, instruction, name(fields.answer, row.contains("output") ? "output" : "response")};
  }
  for (const PairRow& pair : kPairs) {
    const RowShape shape{RowLayout::kPair, name(fields.question, pair.question), name(fields.answer, pair.answer)};
    if (row.contains(shape.question) && row.contains(shape.answer)) return shape;
  }
  if (!fields.question.empty()) return {RowLayout::kPair, fields.question, ""};  // prompts alone
  if (!given && row.contains("text") && row["text"].is_string()) return {RowLayout::kText, "text", ""};
  for (const char* alone : {"question", "problem", "query", "prompt"})
    if (!given && row.contains(alone)) return {RowLayout::kPair, alone, ""};
  throw Error(
      ErrorKind::kInvalidArgument,
      fmt::format(
          "{}: no known layout (messages, conversations, question/answer, question/choices/answerKey, context/question/answers, "
          "instruction/input/output, prompt/completion, text) fits; fields found: {}",
          where, field_list(row)))
      .with_hint("name the fields of the user's question and of the answer");
}

OrderedJson build_messages(const Json& row, const RowShape& shape, const RenderOptions& options, std::string_view where) {
  const bool with_answer = options.content == ContentMode::kConversation;
  if (shape.layout == RowLayout::kText) fail(ErrorKind::kInternal, "{}: text rows have no messages", where);
  OrderedJson messages = OrderedJson::array();
  if (shape.layout == RowLayout::kMessages || shape.layout == RowLayout::kShareGpt) {
    const Json& turns = field(row, shape.question, where);
    if (!turns.is_array()) {
      fail(ErrorKind::kInvalidArgument, "{}: field '{}': found JSON of type {}, expected a list of turns", where, shape.question,
           turns.type_name());
    }
    messages = listed_turns(turns, where);
    if (shape.answer != shape.question && with_answer) {  // prompt and completion, each a list of turns (or the completion as text)
      const Json& completion = field(row, shape.answer, where);
      if (completion.is_array()) {
        for (OrderedJson& turn : listed_turns(completion, where)) messages.push_back(std::move(turn));
      } else {
        messages.push_back(message("assistant", text_of(completion, shape.answer, where)));
      }
    }
    while (!with_answer && !messages.empty() && messages.back()["role"] == "assistant") messages.erase(messages.size() - 1);
  } else {
    if (with_answer && shape.answer.empty()) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: content 'conversation' needs the answer, but no answer field is known; fields found: {}", where,
                              field_list(row)))
          .with_hint("name the answer field, or take content 'prompt'");
    }
    Turns turns = turns_of(row, shape, with_answer, where);
    messages.push_back(message("user", std::move(turns.user)));
    if (with_answer) messages.push_back(message("assistant", std::move(turns.assistant)));
  }
  if (messages.empty()) fail(ErrorKind::kInvalidArgument, "{}: field '{}' holds no turn to render", where, shape.question);
  if (!options.system_prompt.empty() && messages[0]["role"] != "system" && messages[0]["role"] != "developer") {
    messages.insert(messages.begin(), message("system", options.system_prompt));
  }
  return messages;
}

models::ChatRenderOptions chat_render_options(const Json& row, const RowShape& shape, const RenderOptions& options,
                                              std::string_view where) {
  models::ChatRenderOptions render;
  render.add_generation_prompt = options.content == ContentMode::kPrompt;
  render.variables = options.template_variables;
  if (!render.variables.contains("strftime_now")) render.variables["strftime_now"] = models::kFixedTemplateDate;
  const bool listed = shape.layout == RowLayout::kMessages || shape.layout == RowLayout::kShareGpt;
  if (listed && !render.variables.contains("tools") && row.contains("tools")) {
    if (row["tools"].is_array() && !row["tools"].empty()) render.variables["tools"] = row["tools"];
    if (row["tools"].is_string() && !row["tools"].get_ref<const std::string&>().empty()) {
      render.variables["tools"] = parse_ordered_json(row["tools"].get<std::string>(), fmt::format("{}: field 'tools'", where));
    }
  }
  return render;
}

std::string render_row(const Json& row, const RowShape& shape, const RenderOptions& options,
                       const models::ChatTemplate* chat_template, std::string_view where) {
  if (shape.layout == RowLayout::kText) return text_field(row, shape.question, where);
  const OrderedJson messages = build_messages(row, shape, options, where);
  if (chat_template == nullptr) return join_contents(messages);
  const models::ChatRenderOptions render = chat_render_options(row, shape, options, where);
  return with_context(where, [&] { return chat_template->render(messages, render); });
}

}  // namespace salient::calibration
