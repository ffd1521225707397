#include "pipeline/commands/batch_options.h"

#include <algorithm>
#include <filesystem>

#include "common/cancellation.h"
#include "common/error.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/evaluation_options.h"
#include "pipeline/commands/runtime_options.h"

namespace salient::pipeline {
namespace {

std::vector<BaseRule> base_rules(const Arguments& arguments, std::string_view command) {
  std::vector<BaseRule> rules;
  for (const std::string& given : arguments.values("base")) {
    const size_t equals = given.find('=');
    const std::string pattern = equals == std::string::npos ? "" : given.substr(0, equals);
    const std::string base = equals == std::string::npos ? given : given.substr(equals + 1);
    if (base.empty() || (equals == 0)) {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: --base: found '{}', expected MODEL or NAME=MODEL", command, given))
          .with_hint("--base models/demo for all; --base 'demo_*=models/demo' for some");
    }
    rules.push_back({pattern, models::resolve_model(base)});
  }
  // What is said of some goes before what is said of all.
  std::stable_partition(rules.begin(), rules.end(), [](const BaseRule& rule) { return !rule.pattern.empty(); });
  return rules;
}

}  // namespace

std::vector<OptionRow> with_batch_rows(std::vector<OptionRow> rows) {
  for (OptionRow row : std::vector<OptionRow>{
           {"base", "MODEL",
            "the original of every quantized model, or NAME=MODEL of those whose path below the folder or name fits (with * and "
            "?); default: metadata, "
            "config files, names",
            true},
           {"memory", "SIZE",
            "what a model, its base and the work on them may take (8GB); larger ones are skipped; default: what is free when its "
            "turn comes"},
           {"retries", "N", "further attempts at an evaluation that failed, when all others are done; default 1"},
           {"throughput", "", "measure speed, too"},
           {"fresh", "", "evaluate everything again, also what the store has results of"},
           {"output-path", "FOLDER", "write the results in the form of lm-evaluation-harness, too: FOLDER/MODEL/results_TIME.json"},
           {"log-samples", "", "with --output-path: also every document with what the model said"},
           {"update-card", "", "write the figures into the model cards of folders that Salient made"},
           {"store", "FILE", "database for the results; default runs/salient.db"},
           {"json", "", "print what was done and the ranking as JSON"}}) {
    rows.push_back(std::move(row));
  }
  return with_evaluation_rows(std::move(rows));
}

std::vector<std::string> batch_words(const Arguments& arguments) {
  return given_words(arguments, with_batch_rows({}), {"tasks", "store", "json"});
}

std::filesystem::path batch_folder(const Arguments& arguments, std::string_view command) {
  if (arguments.positional().size() == 1) return arguments.positional().front();
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{}: expected one folder with models, found {}", command, arguments.positional().size()))
      .with_hint(fmt::format("{} Models/ --tasks perplexity --data perplexity=heldout.txt", command));
}

BatchSettings batch_settings(const Arguments& arguments, const eval::TaskLibrary& library, std::string_view command) {
  if (arguments.flag("log-samples") && !arguments.has("output-path")) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: --log-samples without --output-path", command))
        .with_hint("--output-path FOLDER says where they go");
  }
  BatchSettings settings;
  settings.requests = task_requests(arguments, library, command);
  settings.options = evaluation_options(arguments, library);
  settings.options.throughput = arguments.flag("throughput");
  settings.model = language_model_options(arguments);
  settings.fresh = arguments.flag("fresh");
  if (arguments.has("memory")) settings.memory = parse_size_option(arguments, "memory", 0);
  settings.retries = arguments.integer_or("retries", 1, 0, 100);
  settings.update_card = arguments.flag("update-card");
  settings.output_path = arguments.text_or("output-path", "");
  settings.log_samples = arguments.flag("log-samples");
  settings.bases = base_rules(arguments, command);
  return settings;
}

BatchEvents batch_events(ProgressLine& progress) {
  BatchEvents events;
  events.note = [&progress](const std::string& line) {
    progress.finish();
    print_note(line);
  };
  events.progress = [&progress](const std::string& label, const eval::EvaluationProgress& at) {
    progress.show(fmt::format("{}: {}{}", label, at.task, at.is_base ? " (base)" : ""), at.phase, at.done, at.total);
  };
  events.end_of_progress = [&progress] { progress.finish(); };
  return events;
}

void finish_report(const BatchReport& report, const BatchSettings& settings, const StoredResults& results, bool json) {
  const CancellationToken never;
  const CancellationScope summary(never);
  if (json) return print_json(report_json(report, settings, results));
  print_text(report_text(report, settings, results));
}

void check_report(const BatchReport& report) {
  const int64_t failed = report.count(OutcomeState::kFailed);
  if (failed == 0) return;
  throw Error(ErrorKind::kCheckFailed,
              fmt::format("{} of {} models failed; all other results are kept", failed, report.outcomes.size()))
      .with_code("BATCH_FAILED")
      .with_hint("the table says why each did; the same command tries them again and leaves the rest as it is");
}

}  // namespace salient::pipeline
