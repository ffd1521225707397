// Evaluations out of their JSON form (eval/report.h), and several of them put together: how a run that was stopped between tasks,
// or whose tasks were done by earlier runs, gets its one report. Single documents are not part of that form.
#pragma once

#include <string_view>

#include "common/json.h"
#include "eval/result.h"

namespace salient::eval {

// The inverse of to_json(Evaluation), without documents. `where` opens the error text. Errors: corruption.
Evaluation evaluation_from_json(const Json& json, std::string_view where);

// Appends the tasks of `more` to `all`, model to model and base to base; throughput is taken over where `more` has it.
void append(Evaluation& all, Evaluation more);

}  // namespace salient::eval
