// HellaSwag (Zellers et al. 2019): the task's own columns out of the data set's, as lm_eval/tasks/hellaswag/utils.py makes them.
#pragma once

#include <string>

#include "common/json.h"

namespace salient::eval {

// Adds query, choices and, where there is a label, gold to activity_label, ctx_a, ctx_b and endings.
void hellaswag_process_docs(Json& row, const std::string& where);

}  // namespace salient::eval
