#include "eval/task_functions.h"

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

constexpr Row<ProcessDocument> kProcessDocs[] = {{"hellaswag.process_docs", hellaswag_process_docs}};
constexpr Row<DocumentField> kDocumentFields[] = {{"wikitext.detokenize", wikitext_detokenized_page}};
constexpr Row<ProcessResults> kProcessResults[] = {
    {"squadv2.process_results", score_squad},
    {"truthfulqa.process_results_mc2", score_truthfulqa_mc2},
    {"wikitext.process_results", score_wikitext},
};
constexpr Row<AggregateDocuments> kAggregations[] = {{"squadv2.best_threshold", squad_best_threshold}};
constexpr Row<ReadDocuments> kReaders[] = {{"wikitext.pages", wikitext_pages}};

template <typename Function, size_t N>
Function find(const Row<Function> (&rows)[N], std::string_view name) {
  for (const auto& row : rows) {
    if (row.name == name) return row.function;
  }
  return nullptr;
}

}  // namespace

ProcessDocument find_process_docs(std::string_view name) { return find(kProcessDocs, name); }
DocumentField find_document_field(std::string_view name) { return find(kDocumentFields, name); }
ProcessResults find_process_results(std::string_view name) { return find(kProcessResults, name); }
AggregateDocuments find_aggregation_function(std::string_view name) { return find(kAggregations, name); }
ReadDocuments find_document_reader(std::string_view name) { return find(kReaders, name); }

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
