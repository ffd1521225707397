#include "pipeline/commands/evaluation_options.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/error.h"
#include "eval/prepared_task.h"
#include "eval/task_data.h"
#include "pipeline/commands/runtime_options.h"

namespace salient::pipeline {
namespace {

// A function, for tables of commands are made of it before main().
const std::vector<OptionRow>& shared_rows() {
  static const std::vector<OptionRow> rows = {
      {"tasks", "LIST", "names of tasks, groups or tags, or YAML files, separated by commas; salient eval --list-tasks shows them",
       true},
      {"include-path", "FOLDER", "a folder of task files (YAML of lm-evaluation-harness) beside those of the program"},
      {"data", "TASK=FILE", "the data of a task: a file, or a folder with a file for each split; TASK:train=FILE for examples",
       true},
      {"num-fewshot", "N", "examples before each question; default: the task's own"},
      {"fewshot-seed", "N", "of the draws of examples and of sampled generations; default 1234"},
      {"limit", "N", "the first N documents, or windows of text; default: all"},
      {"window", "N", "tokens of a window of text; default: the smaller of 2048 and the model's context"},
      {"apply-chat-template", "", "put prompts into the model's chat template"},
      {"examples-in-one-turn", "", "with the chat template: examples and question are one user message, not turns"},
      {"system-instruction", "TEXT", "put before each task's description"},
      {"bos", "POLICY", "auto (default: as the tokenizer does), always or never"},
      {"batch-tokens", "N", "tokens of a forward pass: bounds memory; default 2048"},
      {"max-new-tokens", "N", "of a generation; default: the task's own"},
  };
  return rows;
}

// --data TASK=FILE and --data TASK:SPLIT=FILE, by the task's own name.
// `selected`: tasks that --tasks brings, also those of YAML files, which the library does not have.
std::map<std::string, eval::DataSource> data_sources(const Arguments& arguments, const eval::TaskLibrary& library,
                                                     const std::set<std::string>& selected, std::vector<std::string>& order,
                                                     std::string_view command) {
  std::map<std::string, eval::DataSource> sources;
  for (const std::string& entry : arguments.values("data")) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos) {
      fail(ErrorKind::kInvalidArgument, "{}: --data: found '{}', expected TASK=FILE or TASK:SPLIT=FILE", command, entry);
    }
    std::string task = entry.substr(0, equals);
    std::string split;
    if (const size_t colon = task.rfind(':'); colon != std::string::npos) {
      split = task.substr(colon + 1);
      task.resize(colon);
    }
    const std::string name = selected.contains(task) ? task : library.find(task).name;
    if (!sources.contains(name)) order.push_back(task);
    if (split.empty()) {
      sources[name].path = entry.substr(equals + 1);
    } else {
      sources[name].splits[split] = entry.substr(equals + 1);
    }
  }
  return sources;
}

}  // namespace

std::vector<OptionRow> with_evaluation_rows(std::vector<OptionRow> rows) {
  std::vector<OptionRow> all = shared_rows();
  all.insert(all.end(), rows.begin(), rows.end());
  return with_model_rows(std::move(all));
}

eval::TaskLibrary task_library(const Arguments& arguments) {
  eval::TaskLibrary library = eval::TaskLibrary::bundled();
  if (arguments.has("include-path")) library.add_folder(arguments.text("include-path"));
  return library;
}

std::vector<eval::TaskRequest> task_requests(const Arguments& arguments, const eval::TaskLibrary& library,
                                             std::string_view command) {
  std::set<std::string> selected;
  for (const std::string& name : arguments.list("tasks")) {
    const eval::TaskSelection selection = library.find(name);
    selected.insert(selection.name);
    for (const auto& task : selection.tasks) selected.insert(task->name);
  }
  std::vector<std::string> names;
  std::map<std::string, eval::DataSource> sources = data_sources(arguments, library, selected, names, command);
  if (arguments.has("tasks")) names = arguments.list("tasks");
  if (names.empty()) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: no task is named", command))
        .with_hint("--tasks perplexity --data perplexity=heldout.txt");
  }
  std::vector<eval::TaskRequest> requests;
  for (const std::string& name : names) {
    const eval::TaskSelection selection = library.find(name);
    const eval::DataSource& source = sources[selection.name];
    eval::TaskRequest request{name,
                              source.path,
                              arguments.integer_or("limit", 0, 0, 1 << 30),
                              arguments.integer_or("window", 0, 0, 1 << 20),
                              source.splits,
                              {},
                              {}};
    if (arguments.has("num-fewshot")) request.num_fewshot = arguments.integer_or("num-fewshot", 0, 0, 10000);
    for (const auto& task : selection.tasks) {  // before a model is loaded
      if (task->name != selection.name && sources.contains(task->name)) request.members[task->name] = sources.at(task->name);
      const eval::DataSource own = eval::source_of(request, task->name);
      eval::find_split(*task, task->evaluated_split(), own);
      if (eval::shots_of(*task, request.num_fewshot) > 0 && !task->shots_split().empty())
        eval::find_split(*task, task->shots_split(), own);
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

eval::EvaluationOptions evaluation_options(const Arguments& arguments, const eval::TaskLibrary& library) {
  eval::EvaluationOptions options;
  options.tasks = &library;
  options.apply_chat_template = arguments.flag("apply-chat-template");
  options.fewshot_as_multiturn = !arguments.flag("examples-in-one-turn");
  options.system_instruction = arguments.text_or("system-instruction", "");
  options.fewshot_seed = static_cast<uint64_t>(arguments.integer_or("fewshot-seed", eval::kFewshotSeed, 0, INT64_MAX));
  options.batch_tokens = arguments.integer_or("batch-tokens", 2048, 1, 1 << 24);
  options.max_new_tokens = arguments.integer_or("max-new-tokens", 0, 0, 1 << 20);
  options.throughput = false;
  return options;
}

std::vector<std::string> given_words(const Arguments& arguments, const std::vector<OptionRow>& rows,
                                     const std::vector<std::string>& without) {
  std::vector<std::string> words;
  for (const OptionRow& row : rows) {
    if (!arguments.has(row.name) || std::find(without.begin(), without.end(), row.name) != without.end()) continue;
    if (row.value.empty()) words.push_back("--" + row.name);
    for (const std::string& value : arguments.values(row.name)) words.insert(words.end(), {"--" + row.name, value});
  }
  return words;
}

std::vector<std::string> shared_words(const Arguments& arguments) {
  return given_words(arguments, with_evaluation_rows({}), {"tasks", "activation-bits", "kv-bits"});
}

}  // namespace salient::pipeline
