// runs, models, results: what the store knows.
#include "common/error.h"
#include "common/table.h"
#include "common/text.h"
#include "eval/language_model.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace {

std::vector<OptionRow> with_store_rows(std::vector<OptionRow> rows) {
  rows.push_back({"limit", "N", "the newest N; default: all"});
  rows.push_back({"store", "FILE", "the database; default runs/salient.db"});
  rows.push_back({"json", "", "print as JSON"});
  return rows;
}

int64_t limit_of(const Arguments& arguments) { return arguments.integer_or("limit", 0, 0, INT32_MAX); }

Store open_store(const Arguments& arguments) {
  limit_of(arguments);  // a wrong call is told before a store that is not there
  return Store(arguments.text_or("store", "runs/salient.db"), StoreMode::kExisting);
}

std::string number(double value) { return fmt::format("{:.6g}", value); }

Json stages_json(const Store& store, int64_t run_id) {
  Json stages = Json::array();
  for (const StageRecord& stage : store.list_stages(run_id)) {
    stages.push_back({{"name", stage.name},
                      {"status", stage.status},
                      {"seconds", stage.seconds},
                      {"message", stage.message},
                      {"key", stage.key}});
  }
  return stages;
}

}  // namespace

void runs_command(const std::vector<std::string>& words) {
  const Arguments arguments({"runs", "", "Lists the runs in the store, newest first; --run N shows the stages of one.",
                             "  salient runs\n  salient runs --run 3\n  salient runs --status failed --json\n"},
                            with_store_rows({{"run", "N", "the stages of this run"},
                                             {"name", "PATTERN", "only runs whose name holds this, or matches it as a glob"},
                                             {"status", "STATUS", "only running, done, failed or interrupted ones"}}),
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const Store store = open_store(arguments);
  if (arguments.has("run")) {
    const int64_t id = arguments.integer_or("run", 0, 1, INT64_MAX);
    const std::optional<RunRecord> run = store.find_run(id);
    if (!run) fail(ErrorKind::kNotFound, "run {}: the store {} has no such run", id, store.path().string());
    if (arguments.flag("json")) {
      return print_json({{"id", run->id},
                         {"name", run->name},
                         {"status", run->status},
                         {"error", run->error},
                         {"started", run->started},
                         {"finished", run->finished},
                         {"config", run->config},
                         {"stages", stages_json(store, id)}});
    }
    std::vector<std::vector<std::string>> rows;
    for (const StageRecord& stage : store.list_stages(id)) {
      rows.push_back({stage.name, stage.status, human_duration(stage.seconds), stage.message});
    }
    std::string text = fmt::format("run {} {}: {}, started {}\n", run->id, run->name, run->status, run->started);
    if (!run->error.empty()) text += run->error + "\n";
    return print_text(text + "\n" + format_table({"Stage", "Status", "Time", "Result"}, rows));
  }
  const std::vector<RunRecord> runs =
      store.list_runs({arguments.text_or("name", ""), arguments.text_or("status", ""), limit_of(arguments)});
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const RunRecord& run : runs) {
    list.push_back({{"id", run.id},
                    {"name", run.name},
                    {"status", run.status},
                    {"started", run.started},
                    {"finished", run.finished},
                    {"error", run.error},
                    {"version", run.version},
                    {"config_hash", run.config_hash},
                    {"stages", stages_json(store, run.id)}});
    rows.push_back({std::to_string(run.id), run.name, run.status, run.started, run.finished, shorten(one_line(run.error), 60)});
  }
  if (arguments.flag("json")) return print_json(list);
  print_text(format_table({"Run", "Name", "Status", "Started", "Finished", "Error"}, rows));
}

void models_command(const std::vector<std::string>& words) {
  const Arguments arguments({"models", "", "Lists the artifacts in the store, newest first.",
                             "  salient models\n  salient models --name '*g64*' --json\n"},
                            with_store_rows({{"name", "PATTERN", "only artifacts whose name holds this, or matches it as a glob"}}),
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const Store store = open_store(arguments);
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const ArtifactRecord& artifact : store.list_artifacts({arguments.text_or("name", ""), "", limit_of(arguments)})) {
    list.push_back({{"id", artifact.id},
                    {"name", artifact.name},
                    {"path", artifact.path},
                    {"format", artifact.format},
                    {"method", artifact.method},
                    {"spec", artifact.spec},
                    {"base_model_path", artifact.base_model_path},
                    {"base_model_hash", artifact.base_model_hash},
                    {"dataset", artifact.dataset},
                    {"bytes", artifact.bytes},
                    {"files", artifact.files},
                    {"created", artifact.created},
                    {"there", std::filesystem::exists(artifact.path)}});
    rows.push_back({std::to_string(artifact.id), artifact.name, artifact.format, human_bytes(static_cast<uint64_t>(artifact.bytes)),
                    artifact.created, std::filesystem::exists(artifact.path) ? artifact.path : artifact.path + " (gone)"});
  }
  if (arguments.flag("json")) return print_json(list);
  print_text(format_table({"Id", "Name", "Format", "Size", "Created", "Path"}, rows));
}

void results_command(const std::vector<std::string>& words) {
  const Arguments arguments({"results", "", "Lists the evaluation results in the store.",
                             "  salient results\n  salient results --task arc --metric acc_norm --json\n"},
                            with_store_rows({{"model", "PATTERN", "only models whose name holds this, or matches it as a glob"},
                                             {"task", "NAME", "only this task"},
                                             {"metric", "NAME", "only this metric"},
                                             {"run", "N", "only results of this run"}}),
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const Store store = open_store(arguments);
  ResultFilter filter{arguments.text_or("model", ""), arguments.text_or("task", ""), arguments.text_or("metric", ""), std::nullopt,
                      limit_of(arguments)};
  if (arguments.has("run")) filter.run_id = arguments.integer_or("run", 0, 1, INT64_MAX);
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (const ResultRecord& result : store.list_results(filter)) {
    list.push_back({{"model", result.model_name},
                    {"model_path", result.model_path},
                    {"model_hash", result.model_hash},
                    {"task", result.task},
                    {"metric", result.metric},
                    {"value", result.value},
                    {"stderr", result.standard_error ? Json(*result.standard_error) : Json()},
                    {"n", result.n},
                    {"config", result.config},
                    {"data_sha256", result.data_hash},
                    {"protocol", result.protocol},
                    {"compared_with", result.compared_with},
                    {"created", result.created}});
    const std::string bits = eval::runtime_text(result.config.contains("model") ? result.config.at("model") : result.config);
    rows.push_back({result.model_name + (bits.empty() ? "" : fmt::format(" ({})", bits)), result.task, result.metric,
                    number(result.value), result.standard_error ? number(*result.standard_error) : "", std::to_string(result.n),
                    result.compared_with, result.created});
  }
  if (arguments.flag("json")) return print_json(list);
  print_text(format_table({"Model", "Task", "Metric", "Value", "Stderr", "N", "Compared with", "Created"}, rows));
}

}  // namespace salient::pipeline
