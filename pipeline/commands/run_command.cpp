#include "pipeline/commands/run_command.h"

#include "common/error.h"
#include "common/table.h"
#include "eval/report.h"
#include "eval/verdict.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/dry_run_store.h"
#include "pipeline/commands/session.h"
#include "pipeline/commands/tracking_options.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/run_result.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace {

void print_plan(Store& store, const RunPlan& plan, bool json) {
  std::vector<std::vector<std::string>> rows;
  Json list = Json::array();
  for (const PlannedStage& stage : plan_stages(store, plan.config.name, plan.stages)) {
    rows.push_back({stage.name, stage.runs ? "run" : "skip", stage.reason, stage.key.substr(0, 12)});
    list.push_back({{"stage", stage.name}, {"runs", stage.runs}, {"reason", stage.reason}, {"key", stage.key}});
  }
  if (json) return print_json({{"artifact", plan.artifact_name}, {"stages", list}});
  print_text(fmt::format("model     {}\nartifact  {}\n\n{}", plan.model_folder.string(),
                         (plan.config.output_folder / plan.artifact_name).string(),
                         format_table({"Stage", "Would", "Why", "Key"}, rows)));
}

std::string summary(const RunReport& report) {
  std::string text = fmt::format("\nrun {}: {} stages done, {} up to date\nartifact: {}\n", report.run_id, report.stages_run,
                                 report.stages_skipped, report.artifact.string());
  if (!report.page.empty()) text += fmt::format("report:   {}\n", report.page.string());
  if (!report.evaluation.model.tasks.empty()) {
    text += "\n" + eval::to_table(report.evaluation) + "\n" + eval::verdict(report.evaluation) + "\n";
  }
  return text;
}

}  // namespace

std::vector<OptionRow> run_options() {
  return {
      {"set", "KEY=VALUE", "change a value of the config: --set quantization.group_size=64", true},
      kTrackingRow,
      kTrackingExperimentRow,
      {"dry-run", "", "say which stages would run, and why; do nothing"},
      {"json", "", "print the result as JSON"},
  };
}

void run_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"run", "CONFIG",
       "The whole chain of a config: calibration prompts from the training data, AWQ quantization, naming and storing, detection "
       "and\n"
       "evaluation against the original. Stages whose inputs have not changed are not run again; a run that was stopped goes on "
       "where it\n"
       "was, inside quantization at the block.",
       "  salient run configs/demo.yaml\n"
       "  salient run configs/demo.yaml --dry-run\n"
       "  salient run configs/demo.yaml --set quantization.group_size=64 --set output.folder=artifacts/g64\n"},
      run_options(), words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    fail(ErrorKind::kInvalidArgument, "salient run: found {} configs, expected one: salient run CONFIG",
         arguments.positional().size());
  }
  run_and_print(load_run_config(arguments.positional().front(), arguments.values("set")), arguments);
}

RunObserver run_observer(ProgressLine& progress) {
  RunObserver observer;
  observer.message = [&progress](const std::string& line) {
    progress.finish();
    print_note(line);
  };
  observer.progress = [&progress](const std::string& label, const std::string& unit, int64_t done, int64_t total) {
    progress.show(label, unit, done, total);
  };
  return observer;
}

void run_and_print(RunConfig config, const Arguments& arguments) {
  if (const auto targets = tracking_targets(arguments, "run"); !targets.empty()) config.tracking = targets;
  if (!arguments.has("threads")) set_threads(config.runtime.threads);

  ProgressLine progress;
  const RunObserver observer = run_observer(progress);
  const RunPlan plan = plan_run(config, observer);
  if (arguments.flag("dry-run")) {
    DryRunStore store(config.store);
    return print_plan(store.store(), plan, arguments.flag("json"));
  }
  Store store(config.store);

  const RunReport report = execute_run(store, plan, observer);
  progress.finish();
  if (arguments.flag("json")) {
    print_json(to_json(report));
  } else {
    print_text(summary(report));
  }
  check_result(config, report);
}

}  // namespace salient::pipeline
