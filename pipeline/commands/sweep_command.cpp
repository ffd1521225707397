#include <algorithm>
#include <filesystem>
#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "common/interrupt.h"
#include "common/table.h"
#include "common/text.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/dry_run_store.h"
#include "pipeline/commands/launcher_options.h"
#include "pipeline/commands/run_command.h"
#include "pipeline/commands/session.h"
#include "pipeline/launcher/launch_progress.h"
#include "pipeline/sweep/run_sweep.h"
#include "pipeline/sweep/sweep_jobs.h"
#include "pipeline/sweep/sweep_output.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

const std::vector<OptionRow> kSweepOptions = {
    {"set", "KEY=VALUE", "change a value of the sweep's file: --set loss=retention", true},
    {"max-size", "SIZE", "name the point that loses least among those of at most this size, such as 2.5MB"},
    {"max-loss", "X", "name the smallest point among those that lose at most this much"},
    {"only", "NAME", "this point alone, on this machine", true},
    detach_option(),
    {"dry-run", "", "list the points and what each would still have to do; do nothing"},
    {"json", "", "print the result as JSON"},
};

void print_plan(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, bool json) {
  std::vector<std::vector<std::string>> rows;
  Json list = Json::array();
  for (size_t i = 0; i < plans.size(); ++i) {
    std::string runs;
    Json stages = Json::array();
    for (const PlannedStage& stage : plan_stages(store, plans[i].config.name, plans[i].stages)) {
      if (!stage.runs) continue;
      runs += (runs.empty() ? "" : ", ") + stage.name;
      stages.push_back(stage.name);
    }
    rows.push_back({config.points[i].name, runs.empty() ? "nothing: up to date" : runs});
    list.push_back({{"name", config.points[i].name}, {"runs", stages}});
  }
  if (json) return print_json({{"name", config.name}, {"points", list}});
  print_text(format_table({"Point", "Would run"}, rows));
}

// "best of at most 2.5 MB: group_size=64 (2.4 MB, KL divergence (nats) 0.0131)"
std::string best_line(const SweepConfig& config, const SweepFigures& figures, const std::string& bound, const SweepRow* row) {
  if (row == nullptr) return fmt::format("{}: no point\n", bound);
  return fmt::format("{}: {} ({}, {} {:.4g})\n", bound, config.points[row->point].name,
                     human_bytes(static_cast<uint64_t>(row->bytes)), figures.loss->text(), row->loss->value);
}

// Leaves the points that are named. Errors: invalid argument.
void choose_points(SweepConfig& config, const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const SweepPoint& point : config.points) known.push_back(point.name);
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) == known.end())
      fail(ErrorKind::kInvalidArgument, "--only: the sweep has no point '{}'{}", name, did_you_mean(name, known));
  }
  if (!names.empty())
    std::erase_if(config.points,
                  [&](const SweepPoint& point) { return std::find(names.begin(), names.end(), point.name) == names.end(); });
}

// Runs the points elsewhere, and takes what they stored.
PartsLaunch run_elsewhere(Store& store, const SweepConfig& config, const std::vector<RunPlan>& plans, const Arguments& arguments) {
  const fs::path folder = fs::absolute(store.path()).parent_path() / "launches" / ("sweep-" + config.name);
  const PartJobs jobs = sweep_jobs(store, config, plans, arguments.positional().front(), arguments.values("set"), folder);
  if (jobs.jobs.empty()) return {};
  LaunchProgress progress("jobs");
  return launch_parts(store, jobs, *config.launcher, folder, arguments.flag("detach"), launch_callbacks(progress));
}

struct Bounds {
  std::optional<int64_t> size;
  std::optional<double> loss;
};

Bounds read_bounds(const Arguments& arguments) {
  Bounds bounds;
  if (arguments.has("max-size")) bounds.size = static_cast<int64_t>(parse_size_option(arguments, "max-size", 0));
  if (arguments.has("max-loss")) bounds.loss = ConfigNode::parse(arguments.text("max-loss"), "--max-loss").as_double(0);
  return bounds;
}

// Beside the artifacts, so that a sweep's folder tells what is in it.
void write_files(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures) {
  fs::create_directories(config.folder);
  write_file(config.folder / "sweep.json", dump_json(sweep_json(config, report, figures)));
  write_file(config.folder / "sweep.csv", sweep_csv(config, report, figures));
  if (const std::string plots = sweep_plots(config, figures); !plots.empty()) write_file(config.folder / "sweep.svg", plots);
}

}  // namespace

void sweep_command(const std::vector<std::string>& words) {
  const Arguments arguments({"sweep", "CONFIG",
                             "Quantizes and evaluates a model with many settings: a grid, a list or both, over any key of a run "
                             "configuration. Points that a\n"
                             "float pass serves alike are quantized on one. A sweep that was stopped goes on; points that were "
                             "added later are all that runs\n"
                             "then. Writes sweep.json, sweep.csv and sweep.svg into the sweep's folder.",
                             "  salient sweep configs/sweep.yaml\n"
                             "  salient sweep configs/sweep.yaml --dry-run\n"
                             "  salient sweep configs/sweep.yaml --max-size 2.5MB --max-loss 0.02\n"
                             "  salient sweep configs/sweep.yaml --set 'seeds=[42, 43, 44]' --set loss=retention\n"},
                            kSweepOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1)
    fail(ErrorKind::kInvalidArgument, "salient sweep: found {} configs, expected one: salient sweep CONFIG",
         arguments.positional().size());
  const Bounds bounds = read_bounds(arguments);
  SweepConfig config = load_sweep_config(arguments.positional().front(), arguments.values("set"));
  const bool partly = arguments.has("only");
  choose_points(config, arguments.values("only"));
  if (!arguments.has("threads")) set_threads(config.points.front().run.runtime.threads);

  ProgressLine progress;
  const RunObserver observer = run_observer(progress);
  for (const std::string& name : config.duplicates) print_note(fmt::format("point {} equals an earlier one and is left out", name));
  const std::vector<RunPlan> plans = plan_sweep(config, observer);
  if (arguments.flag("dry-run")) {
    DryRunStore store(config.store);
    return print_plan(store.store(), config, plans, arguments.flag("json"));
  }
  Store store(config.store);
  PartsLaunch elsewhere;
  if (config.launcher && !partly) elsewhere = run_elsewhere(store, config, plans, arguments);
  if (elsewhere.signal != 0) end_by_signal(elsewhere.signal);
  if (!elsewhere.complete) return print_text("jobs are submitted; the same command follows them and collects their results\n");
  const SweepReport report = run_sweep(store, config, plans, observer, elsewhere.given_up);
  progress.finish();
  const SweepFigures figures = sweep_figures(config, report);
  if (!partly) write_files(config, report, figures);

  const SweepRow* under_size = bounds.size ? best_under_size(figures, *bounds.size) : nullptr;
  const SweepRow* under_loss = bounds.loss ? best_under_loss(figures, *bounds.loss) : nullptr;
  if (arguments.flag("json")) {
    Json json = sweep_json(config, report, figures);
    const auto name_of = [&](const SweepRow* row) { return row != nullptr ? Json(config.points[row->point].name) : Json(); };
    if (bounds.size) json["best_under_size"] = name_of(under_size);
    if (bounds.loss) json["best_under_loss"] = name_of(under_loss);
    print_json(json);
  } else {
    std::string text = "\n" + sweep_table(config, report, figures) + "\n";
    if (bounds.size)
      text += best_line(config, figures, fmt::format("best of at most {}", human_bytes(static_cast<uint64_t>(*bounds.size))),
                        under_size);
    if (bounds.loss) text += best_line(config, figures, fmt::format("smallest that loses at most {}", *bounds.loss), under_loss);
    text += fmt::format("{} points, {} quantized on shared passes, {}; {}\n", report.points.size(), report.shared,
                        human_duration(report.seconds), (config.folder / "sweep.svg").string());
    print_text(text);
  }
  const auto failed =
      std::count_if(report.points.begin(), report.points.end(), [](const PointResult& point) { return !point.error.empty(); });
  if (failed > 0)
    throw Error(ErrorKind::kCheckFailed, fmt::format("{} of {} points failed; the others are done", failed, report.points.size()))
        .with_hint("the lines above say why; the same command tries them again");
}

}  // namespace salient::pipeline
