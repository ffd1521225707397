#include "common/cancellation.h"
#include "common/error.h"
#include "eval/task_library.h"
#include "pipeline/batch/watch_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/batch_commands.h"
#include "pipeline/commands/batch_options.h"
#include "pipeline/commands/evaluation_options.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {

void watch_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"watch", "FOLDER",
       "Evaluates models as they appear complete below a folder, as salient evaluate-all does, until Ctrl-C. A folder that is "
       "looked at while it is written is\n"
       "left alone until its files are all there and no longer change; a broken one is named and stops nothing.",
       "  salient watch Models/ --tasks perplexity --data perplexity=heldout.txt\n"
       "  salient watch checkpoints/ --tasks arc --data arc=arc_test.jsonl --settle 60 --until-idle 3600 --json\n"
       "  salient watch Models/ --tasks arc --data arc=arc_test.jsonl --once\n"},
      with_batch_rows({{"poll", "SECONDS", "between two looks; default 10"},
                       {"settle", "SECONDS", "for which the files of a model must not have changed; default 30"},
                       {"once", "", "look once, evaluate what is complete, and end"},
                       {"until-idle", "SECONDS", "end when nothing has changed and nothing was to do for so long"}}),
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::filesystem::path folder = batch_folder(arguments, "salient watch");
  const eval::TaskLibrary library = task_library(arguments);
  const BatchSettings settings = batch_settings(arguments, library, "salient watch");
  WatchOptions options;
  options.poll_seconds = static_cast<double>(arguments.integer_or("poll", 10, 1, 86400));
  options.settle_seconds = static_cast<double>(arguments.integer_or("settle", 30, 0, 86400));
  options.once = arguments.flag("once");
  if (arguments.has("until-idle"))
    options.until_idle_seconds = static_cast<double>(arguments.integer_or("until-idle", 0, 0, 30 * 86400));
  if (options.once && options.until_idle_seconds) {
    throw Error(ErrorKind::kInvalidArgument, "salient watch: --once and --until-idle exclude each other")
        .with_hint("--once ends after one look");
  }
  Store store(arguments.text_or("store", "runs/salient.db"));
  ProgressLine progress;
  const BatchReport report = watch_folder(store, folder, settings, options, batch_events(progress));
  progress.finish();
  const CancellationToken never;
  const CancellationScope summary(never);  // is made after a stop, too
  finish_report(report, settings, StoredResults(store, settings), arguments.flag("json"));
  check_report(report);  // and not whether it was stopped: that is how it is meant to end
}

}  // namespace salient::pipeline
