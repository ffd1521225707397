// SQuAD v2 as a generation task: metrics of lm-evaluation-harness's `squadv2` (version 3), and beside them an abstain-aware set.
//
// In the stock metrics a model that writes "unanswerable" scores 0 on questions without an answer, since the text is compared with
// the empty one; only best_* use the likelihood of " unanswerable". The abstain_* metrics count a generated "unanswerable" as the
// empty answer, and take the first special token as the answer's end: models trained on chats open a new turn there, whose first
// word the stock text runs into the answer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "eval/document_record.h"

namespace salient::eval {

// exact, f1 and abstain_*, and those for questions with (HasAns_) or without an answer (NoAns_), of the generated text.
std::vector<Score> score_squad(const Json& row, const Response& response, const std::string& where);

// best_exact or best_f1, from the scores of exact or f1 and the log-probability of " unanswerable".
double squad_best_threshold(std::string_view metric, std::span<const DocumentRecord> documents);

}  // namespace salient::eval
