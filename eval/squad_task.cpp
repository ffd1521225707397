#include "eval/squad_task.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/squad_metrics.h"

namespace salient::eval {
namespace {

std::vector<std::string> gold_answers(const Json& row, const std::string& where) {
  const Json answers = require<Json>(row, "answers", where);
  const Json* texts = answers.is_object() && answers.contains("text") ? &answers["text"] : nullptr;
  if (texts == nullptr || !texts->is_array() ||
      !std::all_of(texts->begin(), texts->end(), [](const Json& t) { return t.is_string(); })) {
    fail(ErrorKind::kCorruption, "{}: answers: expected {{\"text\": [strings]}}, empty for a question without an answer", where);
  }
  return texts->get<std::vector<std::string>>();
}

}  // namespace

std::vector<Score> score_squad(const Json& row, const Response& response, const std::string& where) {
  const auto golds = gold_answers(row, where);
  const AnswerScore stock = score_answer(response.text, golds);
  const bool abstains = normalize_answer(response.turn) == "unanswerable";
  const AnswerScore aware = score_answer(abstains ? "" : response.turn, golds);
  std::vector<Score> out = {{"exact", stock.exact}, {"f1", stock.f1}, {"abstain_exact", aware.exact}, {"abstain_f1", aware.f1}};
  if (golds.empty()) {
    out.insert(out.end(), {{"NoAns_exact", stock.exact},
                           {"NoAns_f1", stock.f1},
                           {"abstain_NoAns_exact", aware.exact},
                           {"abstain_NoAns_f1", aware.f1}});
  } else {
    out.insert(out.end(), {{"HasAns_exact", stock.exact},
                           {"HasAns_f1", stock.f1},
                           {"abstain_HasAns_exact", aware.exact},
                           {"abstain_HasAns_f1", aware.f1}});
  }
  return out;
}

double squad_best_threshold(std::string_view metric, std::span<const DocumentRecord> documents) {
  const std::string_view single = metric.substr(std::string_view("best_").size());
  std::vector<ThresholdItem> items;
  for (const DocumentRecord& document : documents) {
    const double log_prob = document.response.log_probs.empty() ? 0 : document.response.log_probs.front();
    items.push_back({document.score(single).value_or(0), document.score("HasAns_exact").has_value(), document.response.text.empty(),
                     static_cast<float>(std::exp(log_prob))});
  }
  return best_threshold_score(items);
}

}  // namespace salient::eval
