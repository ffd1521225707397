// What tasks do that templates cannot: the functions that a task YAML names with "!function name". Each is lm-evaluation-harness
// 0.4.13's function of the task whose name it begins with.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "eval/document_record.h"
#include "eval/task.h"

namespace salient::eval {

// What stands before a function's name in a value of a task YAML (common/yaml.h).
inline constexpr std::string_view kFunctionTag = "!function ";

// process_docs: changes or adds columns. `where` names the row in errors. Errors: corruption for missing or ill-typed columns.
using ProcessDocument = void (*)(Json& row, const std::string& where);
// doc_to_text, doc_to_choice, doc_to_target: the value.
using DocumentField = Json (*)(const Json& row, const std::string& where);
// process_results: scores of a document by the metrics' names. `text` is the generated text behind the filters.
using ProcessResults = std::vector<Score> (*)(const Json& row, const Response& response, const std::string& where);
// metric_list.aggregation: a metric over all documents that is no function of its scores alone. A fraction.
using AggregateDocuments = double (*)(std::string_view metric, std::span<const DocumentRecord> documents);
// document_reader: rows of a plain text.
using ReadDocuments = std::vector<Json> (*)(std::string_view text);

// Null where there is no function of that name and kind.
ProcessDocument find_process_docs(std::string_view name);
DocumentField find_document_field(std::string_view name);
ProcessResults find_process_results(std::string_view name);
AggregateDocuments find_aggregation_function(std::string_view name);
ReadDocuments find_document_reader(std::string_view name);

// What known functions are for: the output type whose responses a process_results scores, the metrics that an aggregation gives.
OutputType scored_output_type(std::string_view process_results);
std::span<const std::string_view> aggregated_metrics(std::string_view aggregation);

// All names, for errors.
std::vector<std::string> task_function_names();

}  // namespace salient::eval
