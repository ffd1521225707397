// A task with its rows and prompts, before any model runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluate.h"
#include "eval/prompt.h"
#include "eval/task.h"
#include "eval/task_data.h"

namespace salient::eval {

struct PreparedTask {
  TaskRows data;                                  // all rows of the evaluated split
  std::vector<Document> documents;                // those that are evaluated; they point into data
  std::vector<std::vector<std::string>> prompts;  // for each: one, or one for each choice
  std::vector<std::string> questions;             // what doc_to_text gives; "" with multiple_inputs
  std::vector<Json> targets;                      // what doc_to_target gives
  bool multiple_inputs = false;
  std::string choice_delimiter;
  Json settings;  // what figures depend on, but for the model
};

// Examples before each question: `wanted`, else what the task says, else 0. A task that says exactly 0 keeps it.
int64_t shots_of(const TaskDefinition& task, const std::optional<int64_t>& wanted);

// Errors: those of load_split, templates and the sampler, naming file and line.
PreparedTask prepare_task(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request,
                          const EvaluationOptions& options);

}  // namespace salient::eval
