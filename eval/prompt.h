// Prompts: description, examples and question, as plain text or through a chat template. lm-evaluation-harness 0.4.13,
// ConfigurableTask.fewshot_context.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/language_model.h"
#include "eval/task_format.h"

namespace salient::eval {

struct PromptOptions {
  bool apply_chat_template = false;
  bool fewshot_as_multiturn = true;  // with a chat template: examples are turns of their own, else part of the one user message
  std::string system_instruction;    // before the description
};

class PromptBuilder {
 public:
  // `model` outlives the builder. Errors: invalid argument where a chat template is wanted and the model has none; those of
  // templates.
  PromptBuilder(const LanguageModel& model, const TaskDefinition& task, PromptOptions options);

  // One prompt; with `multiple_inputs` (doc_to_text gives the number of a choice) one for each choice, which then ends it. As in
  // the reference a task has them or not, by its first row. Errors: corruption, naming the row, where it disagrees.
  std::vector<std::string> build(const Document& document, const std::vector<Document>& shots, bool multiple_inputs) const;

  // Between the prompt and a choice: none behind a chat template, unless a prefix without white space at its end opens the answer.
  std::string choice_delimiter() const;

  const TaskFormat& format() const { return documents_; }

 private:
  struct Message {
    std::string role;
    std::string content;
    std::string delimiter;  // behind it in plain text
  };
  void add_question(std::vector<Message>& messages, const std::string& question, const std::string& prefix,
                    std::string_view delimiter) const;
  void add_shot(std::vector<Message>& messages, const Document& shot, bool multiple_inputs) const;
  std::string render(std::vector<Message> messages, bool continues) const;

  const LanguageModel& model_;
  const TaskDefinition& task_;
  PromptOptions options_;
  FieldFormat description_;
  TaskFormat documents_;
  TaskFormat shots_;
};

}  // namespace salient::eval
