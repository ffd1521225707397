// A task's templates at work: the text, choices, target, description and prefix of a row, as ConfigurableTask of
// lm-evaluation-harness 0.4.13 makes them. A key that names a column gives the column itself; any other text is a Jinja2 template.
// Printed lists are read back.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/task.h"
#include "models/jinja/template.h"

namespace salient::eval {

// A row ready for templates.
struct Document {
  const Json* row = nullptr;
  models::jinja::Variables variables;
  std::string where;  // "arc_test.jsonl:12"
};
Document make_document(const Json& row, std::string where);

// A compiled Field.
class FieldFormat {
 public:
  // `origin` names the field in errors: "arc_easy.yaml: doc_to_text".
  FieldFormat(const Field& field, std::string origin);

  bool is_set() const { return field_.is_set(); }

  struct Value {
    Json value;
    bool rendered = false;  // a template's text; else a column, constant or function's value
  };
  // Errors: corruption, naming the row and the columns that it has, where the template uses others.
  Value of(const Document& document) const;

 private:
  Field field_;
  std::string origin_;
  std::optional<models::jinja::Template> template_;
};

// The fields of documents or of few-shot examples.
class TaskFormat {
 public:
  static TaskFormat of_documents(const TaskDefinition& task);
  static TaskFormat of_shots(const TaskDefinition& task);

  // A string, or an integer: the choice that completes the text (multiple inputs).
  Json text(const Document& document) const;
  // A string, an integer (a choice), or a list of either.
  Json target(const Document& document) const;
  bool has_choices() const { return choices_.is_set(); }
  std::vector<std::string> choices(const Document& document) const;
  std::string prefix(const Document& document) const;  // empty: none

 private:
  TaskFormat(const TaskDefinition& task, const Field& text, const Field& choices, const Field& target, const Field& prefix);

  bool task_has_choices_;
  FieldFormat text_, choices_, target_, prefix_;
};

}  // namespace salient::eval
