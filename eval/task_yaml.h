// Task YAML files of lm-evaluation-harness, read into TaskDefinition and GroupDefinition. A file holds one task ("task: name"), or
// one group
// ("group: name", whose "task" lists names, maps with the keys of a task or of a group inside). Keys and their meaning:
// https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md
//
// Read: task, tag, include, dataset_path, dataset_name, dataset_kwargs.data_files, training_split, validation_split, test_split,
// fewshot_split, process_docs, output_type, description, doc_to_text, doc_to_choice, doc_to_target, gen_prefix, target_delimiter,
// fewshot_delimiter, num_fewshot, fewshot_config, generation_kwargs, repeats, filter_list, metric_list, process_results,
// metadata.version. Without effect: task_alias, group_alias, should_decontaminate, doc_to_decontamination_query, the rest of
// metadata. Functions of Python ("!function utils.process_docs") stand for ours, eval/task_functions.h.
//
// Ours:
//   aliases: [squadv2]                    other names of the task
//   row_filter: {subject: anatomy}        rows that count, where the data have the column
//   document_reader: !function NAME       makes rows of a plain text
//   loglikelihood_of: " unanswerable"     with generate_until: a continuation whose likelihood is wanted, too
//   metric_list: [{unit: percent, headline: true}]
//   output_type: token_windows            perplexity by windows
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/yaml.h"
#include "eval/task.h"

namespace salient::eval {

// A file with the name that its errors and its own includes go by.
struct IncludedFile {
  std::string origin;
  ConfigNode root;
};
// Gives the file that `name` (of an include in the file `from`, an origin) means.
using IncludeLoader = std::function<IncludedFile(const std::string& name, const std::string& from)>;

struct TaskFile {
  std::vector<TaskDefinition> tasks;
  std::vector<GroupDefinition>
      groups;  // those inside others first; `tasks` of a group as the file names them: tasks, tags or groups
};

// `origin` names the file. A file without "task" and "group" (a template for includes) gives nothing. Errors, with file, line and
// column: invalid argument for unknown keys, values and functions, for groups without tasks, and for a file that includes itself or
// more than 100 files; unsupported for what is known but not done here (images, sampled generation, metrics that need other
// libraries).
TaskFile read_task_file(const ConfigNode& root, const std::string& origin, const IncludeLoader& include);

}  // namespace salient::eval
