// An evaluation task as data: which rows it reads, how a row becomes requests to a model, and how responses become scores. What a
// task YAML of lm-evaluation-harness 0.4.13 says (eval/task_yaml.h), with all includes resolved; nothing is rendered or loaded yet.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::eval {

enum class OutputType {
  kMultipleChoice,        // which of several continuations is the most likely one
  kLoglikelihood,         // of one continuation
  kLoglikelihoodRolling,  // of a whole text
  kGenerateUntil,
  kTokenWindows  // ours: perplexity by windows of one text, and the divergence from a base (eval/run_perplexity)
};
std::string_view to_string(OutputType type);

enum class Unit { kFraction, kPercent, kNats, kNone };
std::string_view to_string(Unit unit);
// 100 for percent, else 1: from documents' scores to the unit.
double scale_of(Unit unit);

// exact_match: what is taken out of both texts before they are compared, in this order.
struct ExactMatchRules {
  std::vector<std::string> regexes_to_ignore;
  bool ignore_case = false;
  bool ignore_punctuation = false;  // ASCII
  bool ignore_numbers = false;      // ASCII
};

struct MetricDefinition {
  std::string name;
  std::string aggregation = "mean";  // a name of eval/aggregation.h, or "!function ..." of eval/task_functions.h
  Unit unit = Unit::kFraction;
  bool higher_is_better = true;
  bool headline = false;  // stands for the task in a verdict
  bool detail = false;    // ours: not in tables for the terminal
  ExactMatchRules exact_match;
};

// What a key such as doc_to_text says.
struct Field {
  enum class Kind {
    kNone,      // the key is not there
    kConstant,  // a number or a list, as it is
    kTemplate,  // a column's name, or a Jinja2 template over the row
    kFunction   // one of eval/task_functions.h
  };
  Kind kind = Kind::kNone;
  Json constant;
  std::string text;  // the template, or the function's name

  bool is_set() const { return kind != Kind::kNone; }
};

struct FewshotDefinition {
  std::string sampler = "default";  // "default": random without replacement; "first_n"
  std::string split;                // empty: samples, else the training, validation or test split
  Json samples;                     // a list of rows that stands in the YAML itself; null: none
  Field doc_to_text;
  Field doc_to_choice;
  Field doc_to_target;
  Field gen_prefix;
  std::string target_delimiter = " ";
  std::string fewshot_delimiter = "\n\n";
};

struct FilterStep {
  std::string function;
  Json arguments = Json::object();
};
// Steps through which all responses go before they are scored; a task is scored once for each pipeline.
struct FilterPipeline {
  std::string name = "none";
  std::vector<FilterStep> steps;
};

struct TaskDefinition {
  std::string name;
  std::vector<std::string> tags;
  std::vector<std::string> aliases;  // other names under which it is found: ours
  std::string version;               // metadata.version
  std::string origin;                // the YAML file, for errors
  std::string sha256;                // of the definition with its includes
  Json config;                       // the keys of the YAML, with all includes

  // Data. Splits are names of files in a data folder, of data_files, or file names themselves.
  std::string dataset_path;
  std::string dataset_name;
  std::map<std::string, std::string> data_files;  // dataset_kwargs.data_files: split -> file
  std::map<std::string, std::string> row_filter;  // ours: column -> value that rows have, in files that have the column
  std::string document_reader;                    // ours: a function that makes rows of a plain text
  std::string process_docs;                       // a function that changes each row
  std::string cluster_column;                     // ours: rows with the same value there are no independent observations
  std::string training_split;
  std::string validation_split;
  std::string test_split;

  // Requests.
  OutputType output_type = OutputType::kGenerateUntil;
  Field description;
  Field doc_to_text;
  Field doc_to_choice;
  Field doc_to_target;
  Field gen_prefix;
  std::string target_delimiter = " ";
  std::string fewshot_delimiter = "\n\n";
  FewshotDefinition fewshot;
  std::optional<int64_t> num_fewshot;
  std::vector<std::string> until;  // stop strings of kGenerateUntil; the model's EOS text is always one
  int64_t max_new_tokens = 256;
  int64_t repeats = 1;     // of sampled generations
  double temperature = 0;  // of the draw of a token; 0: greedy
  double top_p = 1;
  int64_t top_k = 0;  // 0: off
  std::string probe;  // ours: a continuation of the prompt whose log-likelihood is wanted beside a generation; empty = none

  // Scores.
  std::vector<FilterPipeline> filters;
  std::string process_results;  // a function instead of the metrics of the output type
  std::vector<MetricDefinition> metrics;

  // The split that is evaluated: test, else validation.
  const std::string& evaluated_split() const { return test_split.empty() ? validation_split : test_split; }
  // The split of few-shot examples; empty where they stand in the YAML.
  const std::string& shots_split() const;
};

// Several tasks under one name, with metrics over all of their documents.
struct GroupMetric {
  std::string metric;
  std::vector<std::string> filters;  // empty: every filter that the tasks have
  bool weight_by_size = true;
};
struct GroupDefinition {
  std::string name;
  std::vector<std::string> tasks;  // names of the leaves below it
  std::vector<GroupMetric> metrics;
};

}  // namespace salient::eval
