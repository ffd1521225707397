#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/memory.h"
#include "common/table.h"
#include "eval/report.h"
#include "eval/run_health.h"
#include "eval/verdict.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/run_command.h"
#include "pipeline/commands/session.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace {

// An empty store that vanishes with it: a dry run must not make the one that the config names.
class EmptyStore {
 public:
  EmptyStore() {
    std::string name = (std::filesystem::temp_directory_path() / "salient-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail_errno(name, "create the folder", errno);
    folder_ = name;
    store_.emplace(folder_ / "salient.db");
  }
  ~EmptyStore() {
    store_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  EmptyStore(const EmptyStore&) = delete;
  EmptyStore& operator=(const EmptyStore&) = delete;

  Store& store() { return *store_; }

 private:
  std::filesystem::path folder_;
  std::optional<Store> store_;
};

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
      {"dry-run", "", "say which stages would run, and why; do nothing"},
      {"json", "", "print the result as JSON"},
  };
}

void run_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"run", "CONFIG",
       "The whole chain of a config: calibration prompts from the training data, AWQ quantization, naming and storing, detection and\n"
       "evaluation against the original. Stages whose inputs have not changed are not run again; a run that was stopped goes on where it\n"
       "was, inside quantization at the block.",
       "  salient run configs/demo.yaml\n"
       "  salient run configs/demo.yaml --dry-run\n"
       "  salient run configs/demo.yaml --set quantization.group_size=64 --set output.folder=artifacts/g64\n"},
      run_options(), words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    fail(ErrorKind::kInvalidArgument, "salient run: found {} configs, expected one: salient run CONFIG", arguments.positional().size());
  }
  run_and_print(load_run_config(arguments.positional().front(), arguments.values("set")), arguments);
}

void run_and_print(const RunConfig& config, const Arguments& arguments) {
  if (!arguments.has("threads")) set_threads(config.runtime.threads);

  ProgressLine progress;
  RunObserver observer;
  observer.message = [&](const std::string& line) {
    progress.finish();
    print_note(line);
  };
  observer.progress = [&](const std::string& label, const std::string& unit, int64_t done, int64_t total) {
    progress.show(label, unit, done, total);
  };
  const RunPlan plan = plan_run(config, observer);
  if (arguments.flag("dry-run") && !std::filesystem::exists(config.store)) {
    EmptyStore empty;
    return print_plan(empty.store(), plan, arguments.flag("json"));
  }
  Store store(config.store);
  if (arguments.flag("dry-run")) return print_plan(store, plan, arguments.flag("json"));

  const RunReport report = execute_run(store, plan, observer);
  progress.finish();
  if (arguments.flag("json")) {
    print_json({{"run", report.run_id},
                       {"artifact", report.artifact.string()},
                       {"report", report.page.string()},
                       {"calibration", report.calibration_file.string()},
                       {"stages_run", report.stages_run},
                       {"stages_skipped", report.stages_skipped},
                       {"peak_memory_bytes", peak_memory_bytes()},
                       {"evaluation", eval::to_json(report.evaluation)}});
  } else {
    print_text(summary(report));
  }
  // Last, so that the figures are seen in any case.
  if (const auto broken = eval::broken_error(report.evaluation)) throw *broken;
  if (config.evaluation.max_retention_loss) check_retention(report.evaluation, *config.evaluation.max_retention_loss);
}

}  // namespace salient::pipeline
