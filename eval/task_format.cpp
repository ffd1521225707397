#include "eval/task_format.h"

#include <algorithm>

#include "common/error.h"
#include "eval/python_literal.h"
#include "eval/task_functions.h"
#include "models/jinja/json_text.h"

namespace salient::eval {
namespace {

namespace jinja = models::jinja;

bool is_digits(const std::string& text) {
  return !text.empty() && text.size() < 18 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// True and False count as 1 and 0, as indices do in Python.
Json plain(const Json& value) { return value.is_boolean() ? Json(value.get<bool>() ? 1 : 0) : value; }

std::string columns_of(const Json& row) {
  std::string names;
  for (const auto& [key, value] : row.items()) names += (names.empty() ? "" : ", ") + key;
  return names;
}

}  // namespace

Document make_document(const Json& row, std::string where) {
  Document document{&row, {}, std::move(where)};
  with_context(document.where, [&] {
    for (const auto& [key, value] : row.items()) document.variables.emplace_back(key, jinja::from_json(OrderedJson(value)));
  });
  return document;
}

FieldFormat::FieldFormat(const Field& field, std::string origin) : field_(field), origin_(std::move(origin)) {
  if (field_.kind == Field::Kind::kTemplate) template_ = jinja::Template::parse(field_.text, origin_, jinja::kTaskSyntax);
}

FieldFormat::Value FieldFormat::of(const Document& document) const {
  switch (field_.kind) {
    case Field::Kind::kNone: return {};
    case Field::Kind::kConstant: return {field_.constant, false};
    case Field::Kind::kFunction: return {find_document_field(field_.text)(*document.row, document.where), false};
    case Field::Kind::kTemplate: break;
  }
  if (const auto column = document.row->find(field_.text); column != document.row->end()) return {*column, false};
  jinja::RenderOptions options;
  options.strict_undefined = true;
  try {
    return {template_->render(document.variables, options), true};
  } catch (Error& error) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: {}", document.where, error.message()))
        .with_hint(fmt::format("the row has the columns {}; the task's YAML says which it needs", columns_of(*document.row)));
  }
}

TaskFormat::TaskFormat(const TaskDefinition& task, const Field& text, const Field& choices, const Field& target,
                       const Field& prefix)
    : task_has_choices_(task.doc_to_choice.is_set()),
      text_(text, task.origin + ": doc_to_text"),
      choices_(choices, task.origin + ": doc_to_choice"),
      target_(target, task.origin + ": doc_to_target"),
      prefix_(prefix, task.origin + ": gen_prefix") {}

TaskFormat TaskFormat::of_documents(const TaskDefinition& task) {
  return {task, task.doc_to_text, task.doc_to_choice, task.doc_to_target, task.gen_prefix};
}
TaskFormat TaskFormat::of_shots(const TaskDefinition& task) {
  return {task, task.fewshot.doc_to_text, task.fewshot.doc_to_choice, task.fewshot.doc_to_target, task.fewshot.gen_prefix};
}

Json TaskFormat::text(const Document& document) const {
  auto [value, rendered] = text_.of(document);
  if (rendered && task_has_choices_ && is_digits(value.get_ref<const std::string&>())) return std::stoll(value.get<std::string>());
  value = plain(std::move(value));
  if (!value.is_string() && !value.is_number_integer()) {
    fail(ErrorKind::kCorruption, "{}: doc_to_text: found {}, expected a text", document.where, value.type_name());
  }
  return value;
}

Json TaskFormat::target(const Document& document) const {
  auto [value, rendered] = target_.of(document);
  if (!rendered) {
    // CSV has texts alone, where the data set's own loader makes numbers: digits that are no choice's text are the choice's index.
    if (task_has_choices_ && value.is_string() && is_digits(value.get_ref<const std::string&>())) {
      const std::vector<std::string> texts = choices(document);
      if (std::find(texts.begin(), texts.end(), value.get_ref<const std::string&>()) == texts.end())
        return std::stoll(value.get<std::string>());
    }
    return plain(std::move(value));
  }
  const auto& text = value.get_ref<const std::string&>();
  if (task_has_choices_ && is_digits(text)) return std::stoll(text);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') {
    if (auto list = parse_python_literal(text)) return *list;
  }
  return value;
}

std::vector<std::string> TaskFormat::choices(const Document& document) const {
  auto [value, rendered] = choices_.of(document);
  if (rendered) {
    const auto list = parse_python_literal(value.get_ref<const std::string&>());
    if (!list)
      fail(ErrorKind::kCorruption, "{}: doc_to_choice: the template gives no list: {}", document.where, value.get<std::string>());
    value = *list;
  }
  if (!value.is_array() || value.empty() || !std::all_of(value.begin(), value.end(), [](const Json& c) { return c.is_string(); })) {
    fail(ErrorKind::kCorruption, "{}: doc_to_choice: found {}, expected a list of texts", document.where,
         dump_json(value).substr(0, 80));
  }
  return value.get<std::vector<std::string>>();
}

std::string TaskFormat::prefix(const Document& document) const {
  const auto [value, rendered] = prefix_.of(document);
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace salient::eval
