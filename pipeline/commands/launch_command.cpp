// launch: run configs as jobs.
#include "common/error.h"
#include "common/hash.h"
#include "common/interrupt.h"
#include "common/table.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/launcher_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/launcher/job_files.h"
#include "pipeline/launcher/launch.h"
#include "pipeline/launcher/launch_progress.h"
#include "pipeline/run_pipeline.h"
#include "pipeline/store_transfer.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

const std::vector<OptionRow> kLaunchOptions = with_launcher_rows({
    {"set", "KEY=VALUE", "change a value of every config: --set quantization.group_size=64", true},
    {"name", "NAME", "of this launch, whose jobs and logs lie in launches/NAME beside the store; default: launch"},
    {"store", "FILE", "the store that takes all results in; default runs/salient.db"},
    {"json", "", "print the outcome as JSON"},
});

// Everything that the stages depend on, contents of files included: they say what they would be keyed by.
std::string key_of(Store& store, const RunPlan& plan) {
  std::string keys;
  for (const PlannedStage& stage : plan_stages(store, plan.config.name, plan.stages)) keys += stage.key + "\n";
  return sha256_hex(keys + dump_json(to_json(plan.config)));
}

LaunchJob make_job(Store& store, const fs::path& config_file, const std::vector<std::string>& overrides, const fs::path& folder) {
  LaunchJob job;
  job.name = config_file.stem().string();
  job.folder = fs::absolute(folder / "jobs" / job.name);
  job.store = job.folder / "salient.db";
  job.command = {own_program().string(), "run", fs::absolute(config_file).lexically_normal().string()};
  std::vector<std::string> all = overrides;
  all.push_back("output.store=" + dump_json(job.store.string()));
  for (const std::string& assignment : all) {
    job.command.push_back("--set");
    job.command.push_back(assignment);
  }
  // Read and planned here, so that what is wrong with a config is said before anything is submitted.
  job.key = with_context("job " + job.name, [&] { return key_of(store, plan_run(load_run_config(config_file, all), {})); });
  return job;
}

Json to_json(const LaunchJob& job, const JobOutcome& outcome) {
  return {
      {"name", job.name},         {"status", to_string(outcome.status)}, {"exit_code", outcome.exit_code}, {"tries", outcome.tries},
      {"reason", outcome.reason}, {"log", outcome.log.string()}};
}

}  // namespace

void launch_command(const std::vector<std::string>& words) {
  const Arguments arguments({"launch", "CONFIG...",
                             "Runs several configs of 'salient run' as jobs, on this machine or on a cluster with Slurm, each with "
                             "a store of its own, and takes their\n"
                             "results into one store. Stopped at any moment, the same command goes on: what is in Slurm's queue is "
                             "followed, not submitted again; what\n"
                             "is done is not run again. Ctrl-C cancels all jobs.",
                             "  salient launch configs/w4.yaml configs/w3.yaml\n"
                             "  salient launch configs/*.yaml --launcher slurm --launcher-set partition=gpu --launcher-set gpus=1\n"
                             "  salient launch configs/*.yaml --launcher cluster.yaml --detach\n"},
                            kLaunchOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().empty())
    fail(ErrorKind::kInvalidArgument, "salient launch: found no config, expected one or more: salient launch CONFIG...");
  const LauncherConfig config = load_launcher(arguments.text_or("launcher", "local"), arguments.values("launcher-set"));
  Store store(arguments.text_or("store", "runs/salient.db"));
  const fs::path folder = fs::absolute(store.path()).parent_path() / "launches" / arguments.text_or("name", "launch");
  std::vector<LaunchJob> jobs;
  for (const std::string& file : arguments.positional()) jobs.push_back(make_job(store, file, arguments.values("set"), folder));

  LaunchProgress progress("jobs");
  LaunchCallbacks callbacks = launch_callbacks(progress);
  callbacks.finished = [&](const LaunchJob&, const JobOutcome& outcome) {
    if (!outcome.results.empty()) import_store(store, outcome.results);
  };
  const LaunchResult result = launch(jobs, config, folder, {arguments.flag("detach")}, callbacks);

  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  int64_t failed = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const JobOutcome& outcome = result.outcomes[i];
    list.push_back(to_json(jobs[i], outcome));
    rows.push_back({jobs[i].name, std::string(to_string(outcome.status)), std::to_string(outcome.tries), outcome.reason});
    if (outcome.status == JobStatus::kFailed || outcome.status == JobStatus::kCancelled) ++failed;
  }
  if (arguments.flag("json")) {
    print_json({{"folder", folder.string()}, {"jobs", list}});
  } else {
    print_text(format_table({"Job", "Status", "Tries", "Reason"}, rows));
  }
  if (result.signal != 0) end_by_signal(result.signal);
  if (failed > 0) {
    throw Error(ErrorKind::kCheckFailed,
                fmt::format("{} of {} jobs are not done; their logs lie in {}", failed, jobs.size(), (folder / "jobs").string()))
        .with_hint("the same command tries them again and leaves the others alone");
  }
}

}  // namespace salient::pipeline
