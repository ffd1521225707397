// TruthfulQA, multiple choice 2 (Lin, Hilton, Evans 2022): the share of probability that a model gives to the true answers.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "eval/document_record.h"

namespace salient::eval {

// acc: sum of the probabilities of choices with label 1 over that of all, of mc2_targets {choices[], labels[]}; as
// lm_eval/tasks/truthfulqa/utils.py.
std::vector<Score> score_truthfulqa_mc2(const Json& row, const Response& response, const std::string& where);

}  // namespace salient::eval
