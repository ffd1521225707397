#include "common/error.h"
#include "eval/task_library.h"
#include "pipeline/batch/batch_report.h"
#include "pipeline/batch/stop_request.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/batch_commands.h"
#include "pipeline/commands/batch_options.h"
#include "pipeline/commands/dry_run_store.h"
#include "pipeline/commands/evaluation_options.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

// Makes no store where there is none.
void print_plan(const Arguments& arguments, const ModelListing& listing, const BatchSettings& settings,
                const std::filesystem::path& database) {
  DryRunStore dry_run(database);
  const StoredResults results(dry_run.store(), settings);
  const std::vector<PlannedEvaluation> plan = plan_evaluations(dry_run.store(), listing.models, settings, results);
  std::vector<std::string> shared = shared_words(arguments);
  if (arguments.has("store")) shared.insert(shared.end(), {"--store", arguments.text("store")});
  if (arguments.flag("fresh")) shared.emplace_back("--fresh");
  if (arguments.flag("json")) return print_json(plan_json(plan, listing.left_out, settings, shared));
  print_text(plan_text(plan, listing.left_out, settings, shared));
}

}  // namespace

void evaluate_all_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"evaluate-all", "FOLDER",
       "Evaluates every model below a folder - float, AWQ, compressed-tensors, GGUF, TorchScript - that the store has no results "
       "of, each quantized one beside\n"
       "its base, and ranks them. The same command goes on where it was stopped, and does nothing where nothing is left to do.",
       "  salient evaluate-all Models/ --tasks perplexity,arc --data perplexity=heldout.txt --data arc=arc_test.jsonl\n"
       "  salient evaluate-all Models/ --tasks arc --data arc=arc_test.jsonl --limit 100 --dry-run\n"
       "  salient evaluate-all Models/ --tasks arc --data arc=arc_test.jsonl --base 'llama-*=Models/Llama-3.1-8B' --memory 24GB "
       "--retries 2\n"},
      with_batch_rows({{"dry-run", "", "print what would be evaluated, and the command that does each alone"}}), words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::filesystem::path folder = batch_folder(arguments, "salient evaluate-all");
  const eval::TaskLibrary library = task_library(arguments);
  const BatchSettings settings = batch_settings(arguments, library, "salient evaluate-all");
  ModelListing listing = list_models(folder);
  if (listing.models.empty()) {
    std::string text = fmt::format("{}: no model that could be evaluated", folder.string());
    for (const LeftOut& entry : listing.left_out) text += fmt::format("; {}: {}", entry.path.string(), entry.reason);
    throw Error(ErrorKind::kNotFound, text)
        .with_hint("a model is a folder with config.json, safetensors and tokenizer.json, a GGUF or a TorchScript file");
  }
  const std::filesystem::path database = arguments.text_or("store", "runs/salient.db");
  if (arguments.flag("dry-run")) return print_plan(arguments, listing, settings, database);
  Store store(database);
  StoredResults results(store, settings);
  std::vector<PlannedEvaluation> plan = plan_evaluations(store, listing.models, settings, results);
  const StopRequest stop;
  ProgressLine progress;
  BatchReport report;
  report.left_out = std::move(listing.left_out);
  for (const LeftOut& entry : report.left_out) print_note(fmt::format("left out: {}: {}", entry.path.string(), entry.reason));
  report.outcomes = run_batch(store, "evaluate-all " + folder.string(), std::move(plan), settings, results, batch_events(progress));
  progress.finish();
  print_report(report, settings, results, arguments.flag("json"));
  if (const int signal = StopRequest::signal(); signal != 0) end_by_signal(signal);
  check_report(report);
}

}  // namespace salient::pipeline
