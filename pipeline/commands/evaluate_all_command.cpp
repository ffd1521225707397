#include <algorithm>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/interrupt.h"
#include "common/text.h"
#include "eval/task_library.h"
#include "pipeline/batch/batch_jobs.h"
#include "pipeline/batch/batch_report.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/batch_commands.h"
#include "pipeline/commands/batch_options.h"
#include "pipeline/commands/dry_run_store.h"
#include "pipeline/commands/evaluation_options.h"
#include "pipeline/commands/launcher_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/launcher/launch_progress.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

// Leaves the models that are named. Errors: invalid argument.
void choose_models(std::vector<PlannedEvaluation>& plan, const std::vector<std::string>& labels) {
  std::vector<std::string> known;
  for (const PlannedEvaluation& planned : plan) known.push_back(planned.model.label);
  for (const std::string& label : labels) {
    if (std::find(known.begin(), known.end(), label) == known.end())
      fail(ErrorKind::kInvalidArgument, "--only: the folder has no model '{}'{}", label, did_you_mean(label, known));
  }
  if (labels.empty()) return;
  std::erase_if(plan, [&](const PlannedEvaluation& planned) {
    return std::find(labels.begin(), labels.end(), planned.model.label) == labels.end();
  });
}

std::vector<PlannedEvaluation> make_plan(Store& store, const std::vector<ListedModel>& models, const BatchSettings& settings,
                                         const StoredResults& results, const Arguments& arguments) {
  std::vector<PlannedEvaluation> plan = plan_evaluations(store, models, settings, results);
  choose_models(plan, arguments.values("only"));
  return plan;
}

// Errors: invalid argument for --fresh: jobs of an earlier call could not be told from those that are wanted.
std::optional<LauncherConfig> batch_launcher(const Arguments& arguments) {
  if (!arguments.has("launcher")) {
    for (const char* option : {"launcher-set", "detach"}) {
      if (arguments.has(option)) {
        throw Error(ErrorKind::kInvalidArgument, fmt::format("salient evaluate-all: --{} without --launcher", option))
            .with_hint("--launcher local, --launcher slurm, or a file with the block launcher");
      }
    }
    return std::nullopt;
  }
  if (arguments.flag("fresh")) {
    throw Error(ErrorKind::kInvalidArgument, "salient evaluate-all: --fresh and --launcher exclude each other")
        .with_hint("name another --store, which has no results yet");
  }
  return load_launcher(arguments.text("launcher"), arguments.values("launcher-set"));
}

// Runs the plan elsewhere, and takes what was stored.
PartsLaunch run_elsewhere(Store& store, const fs::path& models, const std::vector<PlannedEvaluation>& plan,
                          const BatchSettings& settings, const StoredResults& results, const LauncherConfig& config,
                          const Arguments& arguments) {
  const std::string place = fs::weakly_canonical(models).string();
  const fs::path folder =
      fs::absolute(store.path()).parent_path() / "launches" / fmt::format("evaluate-all-{}", sha256_hex(place).substr(0, 8));
  const PartJobs jobs = batch_jobs(plan, settings, results, models, batch_words(arguments), config.max_jobs, folder);
  if (jobs.jobs.empty()) return {};
  LaunchProgress progress("jobs");
  return launch_parts(store, jobs, config, folder, arguments.flag("detach"), launch_callbacks(progress));
}

// Makes no store where there is none.
void print_plan(const Arguments& arguments, const ModelListing& listing, const BatchSettings& settings,
                const std::filesystem::path& database) {
  DryRunStore dry_run(database);
  const StoredResults results(dry_run.store(), settings);
  const std::vector<PlannedEvaluation> plan = make_plan(dry_run.store(), listing.models, settings, results, arguments);
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
       "--retries 2\n"
       "  salient evaluate-all Models/ --tasks arc --data arc=arc_test.jsonl --launcher slurm --launcher-set partition=gpu\n"},
      with_batch_rows(with_launcher_rows({{"dry-run", "", "print what would be evaluated, and the command that does each alone"},
                                          {"only", "MODEL", "this model alone, by its path below the folder", true}})),
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::optional<LauncherConfig> launcher = batch_launcher(arguments);
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
  std::vector<PlannedEvaluation> plan = make_plan(store, listing.models, settings, results, arguments);
  BatchReport report;
  report.left_out = std::move(listing.left_out);
  for (const LeftOut& entry : report.left_out) print_note(fmt::format("left out: {}: {}", entry.path.string(), entry.reason));
  if (launcher) {
    const PartsLaunch launched = run_elsewhere(store, folder, plan, settings, results, *launcher, arguments);
    if (launched.signal != 0) end_by_signal(launched.signal);
    if (!launched.complete) return print_text("jobs are submitted; the same command follows them and collects their results\n");
    const StoredResults collected(store, settings);
    report.outcomes = launched_outcomes(plan, make_plan(store, listing.models, settings, collected, arguments), launched);
    finish_report(report, settings, collected, arguments.flag("json"));
    return check_report(report);
  }
  ProgressLine progress;
  report.outcomes = run_batch(store, "evaluate-all " + folder.string(), std::move(plan), settings, results, batch_events(progress));
  progress.finish();
  finish_report(report, settings, results, arguments.flag("json"));
  check_cancelled();
  check_report(report);
}

}  // namespace salient::pipeline
