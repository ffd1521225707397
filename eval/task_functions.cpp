#include "eval/task_functions.h"

#include <array>

#include "common/error.h"
#include "eval/hellaswag_task.h"
#include "eval/squad_task.h"
#include "eval/truthfulqa_task.h"
#include "eval/wikitext_task.h"

namespace salient::eval {
namespace {

template <typename Function>
struct Row {
  std::string_view name;
  Function function;
};
struct ResultsRow {
  std::string_view name;
  ProcessResults function;
  OutputType type;
};
struct AggregationRow {
  std::string_view name;
  AggregateDocuments function;
  std::span<const std::string_view> metrics;
};

constexpr std::array<std::string_view, 2> kSquadThresholds = {"best_exact", "best_f1"};

constexpr Row<ProcessDocument> kProcessDocs[] = {{"hellaswag.process_docs", hellaswag_process_docs}};
constexpr Row<DocumentField> kDocumentFields[] = {{"wikitext.detokenize", wikitext_detokenized_page}};
constexpr ResultsRow kProcessResults[] = {
    {"squadv2.process_results", score_squad, OutputType::kGenerateUntil},
    {"truthfulqa.process_results_mc2", score_truthfulqa_mc2, OutputType::kMultipleChoice},
    {"wikitext.process_results", score_wikitext, OutputType::kLoglikelihoodRolling},
};
constexpr AggregationRow kAggregations[] = {{"squadv2.best_threshold", squad_best_threshold, kSquadThresholds}};
constexpr Row<ReadDocuments> kReaders[] = {{"wikitext.pages", wikitext_pages}};

template <typename Table, size_t N>
const Table* find_row(const Table (&rows)[N], std::string_view name) {
  for (const auto& row : rows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

template <typename Table, size_t N>
const Table& known_row(const Table (&rows)[N], std::string_view name) {
  const Table* row = find_row(rows, name);
  if (row == nullptr) fail(ErrorKind::kInternal, "no function {}", name);
  return *row;
}

template <typename Table, size_t N>
auto find(const Table (&rows)[N], std::string_view name) -> decltype(rows[0].function) {
  const Table* row = find_row(rows, name);
  return row == nullptr ? nullptr : row->function;
}

}  // namespace

ProcessDocument find_process_docs(std::string_view name) { return find(kProcessDocs, name); }
DocumentField find_document_field(std::string_view name) { return find(kDocumentFields, name); }
ProcessResults find_process_results(std::string_view name) { return find(kProcessResults, name); }
AggregateDocuments find_aggregation_function(std::string_view name) { return find(kAggregations, name); }
ReadDocuments find_document_reader(std::string_view name) { return find(kReaders, name); }

OutputType scored_output_type(std::string_view process_results) { return known_row(kProcessResults, process_results).type; }
std::span<const std::string_view> aggregated_metrics(std::string_view aggregation) {
  return known_row(kAggregations, aggregation).metrics;
}

std::vector<std::string> task_function_names() {
  std::vector<std::string> names;
  const auto add = [&](const auto& rows) {
    for (const auto& row : rows) names.emplace_back(row.name);
  };
  add(kProcessDocs);
  add(kDocumentFields);
  add(kProcessResults);
  add(kAggregations);
  add(kReaders);
  return names;
}

}  // namespace salient::eval
