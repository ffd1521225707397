// The options that say what is measured and how, of every command that evaluates models.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/evaluate.h"
#include "eval/language_model.h"
#include "eval/task_library.h"
#include "pipeline/commands/arguments.h"

namespace salient::pipeline {

// --tasks, --data, --limit, templates, examples, lengths; then `rows`, then --dtype, --device and bits.
std::vector<OptionRow> with_evaluation_rows(std::vector<OptionRow> rows);

// The bundled tasks and those of --include-path.
eval::TaskLibrary task_library(const Arguments& arguments);

// What --tasks and --data ask for; data that are not there are told now. `command` opens error texts: "salient eval". Errors:
// invalid argument, not found.
std::vector<eval::TaskRequest> task_requests(const Arguments& arguments, const eval::TaskLibrary& library,
                                             std::string_view command);

// Without observer, journals and throughput. `library` outlives the options.
eval::EvaluationOptions evaluation_options(const Arguments& arguments, const eval::TaskLibrary& library);

// Options of these rows as they were given, as words: the same settings for another process. `without`: names of options that are
// left out.
std::vector<std::string> given_words(const Arguments& arguments, const std::vector<OptionRow>& rows,
                                     const std::vector<std::string>& without);
// Those of evaluations but for --tasks and the bits.
std::vector<std::string> shared_words(const Arguments& arguments);

}  // namespace salient::pipeline
