// Every task there is. Prompts, stop strings and metrics are those of lm-evaluation-harness 0.4.13, zero-shot, unless a name says otherwise.
#pragma once

#include <span>
#include <string_view>

#include "eval/task.h"

namespace salient::eval {

std::span<const TaskDefinition> tasks();
// By name or alias. Errors: invalid argument, with the list of names.
const TaskDefinition& find_task(std::string_view name);

}  // namespace salient::eval
