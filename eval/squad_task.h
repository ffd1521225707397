// SQuAD v2 as a generation task: prompt and metrics of lm-evaluation-harness's `squadv2` (version 3), and beside them an abstain-aware set.
//
// In the stock metrics a model that writes "unanswerable" scores 0 on questions without an answer, since the text is compared with the empty
// one; only best_* use the likelihood of " unanswerable". The abstain_* metrics count a generated "unanswerable" as the empty answer, and take
// the first special token as the answer's end: models trained on chats open a new turn there, whose first word the stock text runs into the answer.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "eval/task.h"

namespace salient::eval {

inline constexpr std::array kSquadMetrics = {
    MetricDefinition{"exact", Unit::kPercent},
    MetricDefinition{"f1", Unit::kPercent},
    MetricDefinition{"HasAns_exact", Unit::kPercent},
    MetricDefinition{"HasAns_f1", Unit::kPercent},
    MetricDefinition{"NoAns_exact", Unit::kPercent},
    MetricDefinition{"NoAns_f1", Unit::kPercent},
    MetricDefinition{"best_exact", Unit::kPercent},
    MetricDefinition{"best_f1", Unit::kPercent},
    MetricDefinition{"abstain_exact", Unit::kPercent},
    MetricDefinition{"abstain_f1", Unit::kPercent, true, true},
    MetricDefinition{"abstain_HasAns_exact", Unit::kPercent},
    MetricDefinition{"abstain_HasAns_f1", Unit::kPercent},
    MetricDefinition{"abstain_NoAns_exact", Unit::kPercent},
    MetricDefinition{"abstain_NoAns_f1", Unit::kPercent},
};

std::string squad_prompt(const Json& row, const std::string& where);
// The first gold answer, or "unanswerable".
std::string squad_answer(const Json& row, const std::string& where);
// response: the generated text, and the log-probability of " unanswerable".
std::vector<Score> score_squad(const Json& row, const Response& response);
// best_exact and best_f1.
std::vector<SetScore> score_squad_set(std::span<const DocumentRecord> documents);

}  // namespace salient::eval
