// tracking: what was told to trackers and what waits; and the options by which other commands name one.
#include <algorithm>
#include <array>

#include "common/error.h"
#include "common/table.h"
#include "common/text.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/commands/tracking_options.h"
#include "pipeline/tracking/send.h"
#include "pipeline/tracking/sinks.h"

namespace salient::pipeline {
namespace {

struct Action {
  const char* name;
  void (*run)(const Arguments& arguments, Store& store);
};

Json summary_json(const OutboxSummary& summary) {
  const TrackedRun& run = summary.run;
  return {{"id", run.id},
          {"run", run.run_id ? Json(*run.run_id) : Json()},
          {"name", run.name},
          {"sink", run.sink},
          {"url", run.url},
          {"experiment", run.experiment},
          {"link", find_tracking_sink(run.sink).link(run)},
          {"remote", run.remote},
          {"status", run.status},
          {"created", run.created},
          {"queued", summary.queued},
          {"queued_bytes", summary.queued_bytes},
          {"rejected", summary.rejected},
          {"sent", summary.sent},
          {"error", summary.error}};
}

void show_status(const Arguments& arguments, Store& store) {
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  std::string errors;
  for (const OutboxSummary& summary : TrackingOutbox(store).summaries()) {
    const TrackedRun& run = summary.run;
    list.push_back(summary_json(summary));
    const std::string link = find_tracking_sink(run.sink).link(run);
    rows.push_back({std::to_string(run.id), run.run_id ? std::to_string(*run.run_id) : "", run.name, run.status,
                    std::to_string(summary.sent), std::to_string(summary.queued), std::to_string(summary.rejected),
                    link.empty() ? fmt::format("{} ({})", run.url, run.experiment) : link});
    if (!summary.error.empty()) errors += fmt::format("{}: {}\n", run.id, summary.error);
  }
  if (arguments.flag("json")) return print_json(list);
  print_text(format_table({"Id", "Run", "Name", "Status", "Sent", "Waiting", "Refused", "Where"}, rows) +
             (errors.empty() ? "" : "\n" + errors));
}

std::optional<int64_t> given_id(const Arguments& arguments, Store& store) {
  if (!arguments.has("id")) return std::nullopt;
  const int64_t id = arguments.integer_or("id", 0, 1, INT64_MAX);
  if (TrackingOutbox(store).find(id)) return id;
  throw Error(ErrorKind::kNotFound,
              fmt::format("salient tracking: --id {}: the store {} has no such tracked run", id, store.path().string()))
      .with_hint("salient tracking status lists them");
}

void send_now(Store& store, SendOptions options, bool json) {
  TrackingSender sender(store);
  const SendReport report = sender.send(options);
  if (json) {
    print_json({{"sent", report.sent}, {"refused", report.rejected}, {"waiting", report.left}, {"errors", report.errors}});
  } else {
    print_text(fmt::format("{} sent, {} refused, {} waiting\n", report.sent, report.rejected, report.left));
  }
  if (report.left == 0 && report.rejected == 0) return;
  if (report.rejected > 0 && report.errors.empty()) {
    throw Error(ErrorKind::kIo, fmt::format("the tracker refused {} items", report.rejected))
        .with_hint("salient tracking status says why; salient tracking log --run N --again tells a run from the beginning");
  }
  std::string reason = report.busy ? "another process is sending them" : "they are kept";
  if (!report.errors.empty()) reason = report.errors.front();
  throw Error(ErrorKind::kIo, fmt::format("{} items wait: {}", report.left, reason));
}

void send(const Arguments& arguments, Store& store) {
  send_now(store, {given_id(arguments, store), arguments.flag("refused")}, arguments.flag("json"));
}

// A run's identity where it is tracked already; what a run tells itself covers stages that it may not have reached.
std::string known_identity(Store& store, const TrackingTarget& target, int64_t run_id, bool again) {
  TrackingOutbox outbox(store);
  for (const TrackedRun& run : outbox.list()) {
    if (run.run_id != run_id || run.sink != target.sink || run.url != target.url || run.experiment != target.experiment) continue;
    if (again) outbox.restart(run.id);
    return run.identity;
  }
  return {};
}

void log_run(const Arguments& arguments, Store& store) {
  const std::vector<TrackingTarget> targets = tracking_targets(arguments, "tracking");
  if (targets.size() != 1) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient tracking log: found {} trackers, expected one", targets.size()))
        .with_hint("--tracking mlflow=http://HOST:PORT");
  }
  if (!arguments.has("run")) {
    throw Error(ErrorKind::kInvalidArgument, "salient tracking log: --run is missing")
        .with_hint("salient runs lists the runs of the store");
  }
  const int64_t run_id = arguments.integer_or("run", 0, 1, INT64_MAX);
  const std::string identity = known_identity(store, targets.front(), run_id, arguments.flag("again"));
  const int64_t id = queue_run(store, targets.front(), run_id, identity);
  send_now(store, {id, false}, arguments.flag("json"));
}

void drop(const Arguments& arguments, Store& store) {
  const std::optional<int64_t> id = given_id(arguments, store);
  if (!id)
    throw Error(ErrorKind::kInvalidArgument, "salient tracking drop: --id is missing")
        .with_hint("salient tracking status lists the ids");
  TrackingOutbox(store).drop(*id);
  print_text(fmt::format("{}: forgotten; what the tracker has of it stays there\n", *id));
}

constexpr std::array kActions = {Action{"status", show_status}, Action{"send", send}, Action{"log", log_run}, Action{"drop", drop}};

}  // namespace

std::vector<TrackingTarget> tracking_targets(const Arguments& arguments, const std::string& command) {
  if (arguments.has("tracking-experiment") && !arguments.has("tracking")) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient {}: --tracking-experiment without --tracking", command))
        .with_hint("--tracking mlflow=http://HOST:PORT; the experiment of a configuration: --set tracking.experiment=NAME");
  }
  std::vector<TrackingTarget> targets;
  for (const std::string& text : arguments.values("tracking"))
    targets.push_back(
        parse_tracking(text, arguments.text_or("tracking-experiment", ""), fmt::format("salient {}: --tracking", command)));
  return targets;
}

void tracking_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"tracking", "ACTION",
       "What experiment trackers (MLflow) were told of runs and evaluations. Actions:\n"
       "  status   every tracked run, what has arrived, what waits and why\n"
       "  send     one attempt at all that waits, as every run with a tracker makes it; exit code 6 when something is left\n"
       "  log      tell a tracker of a run that the store has, whether it was told before or not\n"
       "  drop     forget a tracked run with all that waits for it",
       "  salient tracking status\n"
       "  salient tracking send\n"
       "  salient tracking send --id 3 --refused\n"
       "  salient tracking log --run 7 --tracking mlflow=http://localhost:5000\n"
       "  salient tracking drop --id 3\n"},
      {{"id", "N", "send, drop: this tracked run"},
       {"refused", "", "send: also what the tracker refused before"},
       {"run", "N", "log: the run"},
       kTrackingRow,
       kTrackingExperimentRow,
       {"again", "", "log: as a new run of the tracker, when the one it had is gone"},
       {"store", "FILE", "the database; default runs/salient.db"},
       {"json", "", "print as JSON"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  std::vector<std::string> names;
  for (const Action& action : kActions) names.emplace_back(action.name);
  if (arguments.positional().size() != 1) {
    fail(ErrorKind::kInvalidArgument, "salient tracking: found {} actions, expected one of {}", arguments.positional().size(),
         list_choices(names));
  }
  const std::string& name = arguments.positional().front();
  const auto action = std::find_if(kActions.begin(), kActions.end(), [&](const Action& row) { return row.name == name; });
  if (action == kActions.end()) {
    fail(ErrorKind::kInvalidArgument, "salient tracking: unknown action '{}', expected {}{}", name, list_choices(names),
         did_you_mean(name, names));
  }
  Store store(arguments.text_or("store", "runs/salient.db"), StoreMode::kExisting);
  action->run(arguments, store);
}

}  // namespace salient::pipeline
