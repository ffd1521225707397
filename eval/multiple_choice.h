// Multiple choice: which of several continuations a model finds most likely.
#pragma once

#include <string>
#include <vector>

#include "eval/task.h"

namespace salient::eval {

// choices {text[], label[]} and answerKey, as in ARC; labels are A.. or 1.. . Errors: corruption, also for an answerKey that is no label.
Choices labelled_choices(const Json& row, const std::string& where);

// acc: the choice with the largest log-probability is the gold one; acc_norm: the same after division by the choice's length in Unicode
// code points, delimiter not counted. The first of equal ones wins.
std::vector<Score> score_choices(const Json& row, const Response& response);

}  // namespace salient::eval
