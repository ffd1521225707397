#include "eval/prompt.h"

#include "common/error.h"
#include "eval/unicode_text.h"
#include "models/jinja/text.h"

namespace salient::eval {
namespace {

bool starts_with_space(std::string_view text) {
  const auto characters = to_code_points(text.substr(0, 4));
  return !characters.empty() && is_space(characters.front());
}
bool ends_with_space(std::string_view text) { return !text.empty() && trim_right(text).size() != text.size(); }

// Both with the delimiter between them, unless one of them brings white space along.
std::string join(const std::string& a, const std::string& b, std::string_view delimiter) {
  if (a.empty() || b.empty()) return a + b;
  return ends_with_space(a) || starts_with_space(b) ? a + b : a + std::string(delimiter) + b;
}

// The text of an answer: a choice, the first of several, or itself.
std::string answer_text(const Json& target, const std::vector<std::string>& choices, const std::string& where) {
  if (target.is_number_integer() && !choices.empty()) {
    auto index = target.get<int64_t>();
    const auto count = static_cast<int64_t>(choices.size());
    if (index < 0) index += count;  // as Python's lists
    if (index < 0 || index >= count)
      fail(ErrorKind::kCorruption, "{}: the answer is choice {} of {}", where, target.get<int64_t>(), count);
    return choices[static_cast<size_t>(index)];
  }
  const Json& first = target.is_array() && !target.empty() ? target.front() : target;
  if (!first.is_string())
    fail(ErrorKind::kCorruption, "{}: doc_to_target: found {}, expected a text for an example", where, first.type_name());
  return first.get<std::string>();
}

}  // namespace

PromptBuilder::PromptBuilder(const LanguageModel& model, const TaskDefinition& task, PromptOptions options)
    : model_(model),
      task_(task),
      options_(std::move(options)),
      description_(task.description, task.origin + ": description"),
      documents_(TaskFormat::of_documents(task)),
      shots_(TaskFormat::of_shots(task)) {
  if (options_.apply_chat_template && !model.chat_template) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: a chat template is wanted, but {} has none", model.name, model.folder.string()))
        .with_hint("evaluate without the chat template");
  }
}

std::string PromptBuilder::choice_delimiter() const {
  if (!options_.apply_chat_template) return task_.target_delimiter;
  return task_.gen_prefix.is_set() && !ends_with_space(task_.gen_prefix.text) ? task_.target_delimiter : "";
}

void PromptBuilder::add_question(std::vector<Message>& messages, const std::string& question, const std::string& prefix,
                                 std::string_view delimiter) const {
  const bool delimited = !prefix.empty() && !question.empty() && !ends_with_space(question) && !starts_with_space(prefix);
  messages.push_back({"user", question, std::string(delimited ? delimiter : "")});
  if (!prefix.empty()) messages.push_back({"assistant", prefix, ""});
}

void PromptBuilder::add_shot(std::vector<Message>& messages, const Document& shot, bool multiple_inputs) const {
  std::vector<std::string> choices = shots_.has_choices() ? shots_.choices(shot) : std::vector<std::string>();
  Json question = shots_.text(shot);
  if (multiple_inputs) {
    question = answer_text(question, choices, shot.where);
    choices.clear();
  }
  if (!question.is_string())
    fail(ErrorKind::kCorruption, "{}: doc_to_text: found a number, expected a text for an example", shot.where);
  const Json target = shots_.target(shot);
  const std::string prefix = shots_.prefix(shot);
  const auto text = question.get<std::string>();
  const bool has_answer = !target.is_null() && !(target.is_string() && target.get_ref<const std::string&>().empty());
  const bool delimited = prefix.empty() ? has_answer : !text.empty() && !ends_with_space(text) && !starts_with_space(prefix);
  messages.push_back({"user", text, delimited ? task_.fewshot.target_delimiter : ""});
  if (has_answer) {
    messages.push_back({"assistant", join(prefix, answer_text(target, choices, shot.where), " "), task_.fewshot.fewshot_delimiter});
  } else if (!prefix.empty()) {
    messages.push_back({"assistant", prefix, ""});
  }
}

std::string PromptBuilder::render(std::vector<Message> messages, bool continues) const {
  if (!options_.apply_chat_template) {
    std::string text;
    for (const Message& message : messages) text += message.content + message.delimiter;
    return text;
  }
  if (!options_.fewshot_as_multiturn) {  // all that is neither system nor the opening of the answer is one user message
    std::vector<Message> merged;
    if (messages.front().role == "system") merged.push_back(messages.front());
    const bool opened = messages.back().role == "assistant";
    const size_t end = messages.size() - (opened ? 1 : 0);
    std::string text;
    for (size_t i = merged.size(); i < end; ++i) text += messages[i].content + (i + 1 < end ? messages[i].delimiter : "");
    merged.push_back({"user", text, ""});
    if (opened) merged.push_back(messages.back());
    messages = std::move(merged);
  }
  const auto render_chat = [&](bool with_system) {
    OrderedJson chat = OrderedJson::array();
    for (const Message& message : messages) {
      if (message.role == "system" && !with_system) continue;
      OrderedJson turn = OrderedJson::object();
      turn["role"] = message.role;
      turn["content"] = message.content;
      chat.push_back(std::move(turn));
    }
    models::ChatRenderOptions render;
    render.add_generation_prompt = !continues;
    render.variables["strftime_now"] = models::kFixedTemplateDate;
    return model_.chat_template->render(chat, render);
  };
  std::string text;
  try {
    text = render_chat(true);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalidArgument || messages.front().role != "system") throw;
    text = render_chat(false);  // a template that refuses the system role
  }
  if (!continues) return text;
  // The last message goes on, so what the template puts behind it goes.
  const std::string& last = messages.back().content;
  const std::string_view stripped = models::jinja::strip(last, nullptr, true, true);
  const size_t at = text.rfind(stripped);
  if (at == std::string::npos)
    fail(ErrorKind::kUnsupported, "{}: the chat template changes the message that is to go on: {}", model_.name, last);
  const std::string_view open = models::jinja::strip_left(last);
  return text.substr(0, at + (std::string_view(text).substr(at, open.size()) == open ? open.size() : stripped.size()));
}

std::vector<std::string> PromptBuilder::build(const Document& document, const std::vector<Document>& shots,
                                              bool multiple_inputs) const {
  const Json description = description_.of(document).value;
  const Json question = documents_.text(document);
  if (question.is_number_integer() != multiple_inputs) {
    fail(ErrorKind::kCorruption, "{}: doc_to_text: found {}, expected {} as in the first row", document.where,
         multiple_inputs ? "a text" : "the number of a choice", multiple_inputs ? "the number of a choice" : "a text");
  }
  const std::string prefix = documents_.prefix(document);
  std::vector<Message> messages;
  const std::string system =
      join(options_.system_instruction, description.is_string() ? description.get<std::string>() : "", task_.fewshot_delimiter);
  if (!system.empty()) messages.push_back({"system", system, ""});
  for (const Document& shot : shots) add_shot(messages, shot, multiple_inputs);
  const std::vector<std::string> questions =
      multiple_inputs ? documents_.choices(document) : std::vector<std::string>{question.get<std::string>()};
  std::vector<std::string> prompts;
  for (const std::string& text : questions) {
    std::vector<Message> whole = messages;
    add_question(whole, text, prefix, multiple_inputs ? "" : task_.target_delimiter);
    prompts.push_back(render(std::move(whole), !prefix.empty()));
  }
  return prompts;
}

}  // namespace salient::eval
