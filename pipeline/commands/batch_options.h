// What salient evaluate-all and salient watch have in common: their options, what they print, how they end.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "pipeline/batch/batch_report.h"
#include "pipeline/batch/batch_settings.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {

// `rows` before --base, --memory, --retries, the options of evaluations, --store and --json.
std::vector<OptionRow> with_batch_rows(std::vector<OptionRow> rows);

// In all of them `command` opens error texts: "salient watch".

// The options as they were given but for --tasks, --store and --json, as words: the same settings for another process.
std::vector<std::string> batch_words(const Arguments& arguments);

// The one folder that is named. Errors: invalid argument.
std::filesystem::path batch_folder(const Arguments& arguments, std::string_view command);

// `library` outlives the settings. Errors: invalid argument, not found.
BatchSettings batch_settings(const Arguments& arguments, const eval::TaskLibrary& library, std::string_view command);

// Notes and progress go to standard error. `progress` outlives the events.
BatchEvents batch_events(ProgressLine& progress);

// Prints it, also after a stop was asked for.
void finish_report(const BatchReport& report, const BatchSettings& settings, const StoredResults& results, bool json);
// Errors: check failed with code BATCH_FAILED where a model failed.
void check_report(const BatchReport& report);

}  // namespace salient::pipeline
