// Task YAML files of lm-evaluation-harness, read into TaskDefinition and GroupSource. A file holds one task ("task: name"), or one
// group ("group: name"), whose "task" lists names and maps. A map is a group of its own ("group" and "task"), a task of its own
// ("task" and its templates), or one that is there otherwise with other keys: {task: arc_easy, num_fewshot: 5}, {group: mmlu,
// num_fewshot: 5}. Keys of tasks that stand in a group itself are those of all its members that do not say otherwise. Keys and
// their meaning: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md
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
//   cluster_column: passage               rows that share it count as one observation in statistics
//   loglikelihood_of: " unanswerable"     with generate_until: a continuation whose likelihood is wanted, too
//   metric_list: [{unit: percent, headline: true, detail: true}]
//   output_type: token_windows            perplexity by windows
#pragma once

#include <functional>
#include <memory>
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

// A task's keys before they are understood: its map and those of its includes; the nearest that has a key decides.
struct TaskSource {
  struct Layer {
    ConfigNode node;
    bool is_override = false;  // over a task that has its name elsewhere: "task", "group" and the like in it are not the task's
  };
  std::vector<Layer> layers;
  std::string origin;
};
struct ReadTask {
  std::shared_ptr<const TaskDefinition> definition;
  TaskSource source;
};
// The task with other keys over its own, the nearest first. Errors: those of read_task_file.
ReadTask override_task(const TaskSource& source, const std::vector<TaskSource::Layer>& overrides);

struct GroupSource;
struct GroupMember {
  std::string name;                          // of a task, tag or group
  std::vector<TaskSource::Layer> overrides;  // over what is found under the name
  std::shared_ptr<const ReadTask> task;      // set for a task of its own
  std::shared_ptr<const GroupSource> group;  // set for a group of its own
};
struct GroupSource {
  std::string name;
  std::vector<GroupMember> members;
  std::vector<TaskSource::Layer> overrides;  // over all members
  std::vector<GroupMetric> metrics;
};

struct TaskFile {
  std::vector<std::shared_ptr<const ReadTask>> tasks;      // with those of its own of a group
  std::vector<std::shared_ptr<const GroupSource>> groups;  // those inside others first
};

// `origin` names the file. A file without "task" and "group" (a template for includes) gives nothing. Errors, with file, line and
// column: invalid argument for unknown keys, values and functions, for groups without tasks, and for a file that includes itself or
// more than 100 files; unsupported for what is known but not done here (images, sampled generation, metrics that need other
// libraries).
TaskFile read_task_file(const ConfigNode& root, const std::string& origin, const IncludeLoader& include);

}  // namespace salient::eval
