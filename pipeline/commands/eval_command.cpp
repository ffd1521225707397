#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "common/file.h"
#include "common/table.h"
#include "common/text.h"
#include "eval/evaluate.h"
#include "eval/lm_eval_results.h"
#include "eval/report.h"
#include "eval/run_health.h"
#include "eval/runtime_cost.h"
#include "eval/task_library.h"
#include "eval/verdict.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/evaluation_options.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/commands/tracking_options.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/hashed_model.h"
#include "pipeline/journal_store.h"
#include "pipeline/measured_quality.h"
#include "pipeline/model_card.h"
#include "pipeline/online_calibration.h"
#include "pipeline/store.h"
#include "pipeline/tracking/run_tracker.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kEvalOptions = with_evaluation_rows({
    {"list-tasks", "", "show every task and what it is; do nothing else"},
    adapter_base_option(),
    {"compare-with", "MODEL", "the original: every metric is compared with it, on the same documents"},
    {"runtime-cost", "", "also measure what 8-bit activations and an 8-bit KV cache cost, on the text of the task perplexity"},
    {"no-throughput", "", "do not measure speed"},
    {"output-path", "PATH",
     "write the results in the form of lm-evaluation-harness: PATH/MODEL/results_TIME.json; a PATH ending in .json: beside it"},
    {"log-samples", "", "with --output-path: also every document with what the model said, samples_TASK_TIME.jsonl"},
    {"record", "FILE.jsonl", "online calibration: add what the model runs to this calibration record, for the next quantization"},
    {"record-rows", "N", "rows that a record keeps, a sample of all; 0: every row; default 128"},
    {"store", "FILE", "database for the results; default runs/salient.db"},
    {"update-card", "", "write the figures into the README.md and quantization_metadata.json of MODEL, a folder that Salient made"},
    kTrackingRow,
    kTrackingExperimentRow,
    {"no-store", "", "do not store the results, nor what they are made of: a stopped evaluation then starts again"},
    {"fresh", "", "run every request, also those whose answers the store has from an evaluation before"},
    {"json", "", "print the results as JSON"},
});

// The request whose text tells what rounding costs.
const eval::TaskRequest* find_text(const std::vector<eval::TaskRequest>& requests, const eval::TaskLibrary& library) {
  const auto it = std::find_if(requests.begin(), requests.end(),
                               [&](const auto& request) { return library.find(request.task).name == "perplexity"; });
  if (it != requests.end()) return &*it;
  throw Error(ErrorKind::kInvalidArgument, "salient eval: --runtime-cost without the task perplexity, on whose text it is measured")
      .with_hint("--tasks perplexity --data perplexity=heldout.txt");
}

// One line a task: what it is called, scored by, drawn from.
void print_tasks(const eval::TaskLibrary& library, bool json) {
  std::vector<std::vector<std::string>> rows;
  Json list = Json::array();
  for (const std::string& name : library.names()) {
    const eval::TaskSelection selection = library.find(name);
    const eval::TaskDefinition& task = *selection.tasks.front();
    const std::string kind = selection.groups.empty() ? std::string(eval::to_string(task.output_type))
                                                      : fmt::format("group of {}", selection.tasks.size());
    std::vector<std::string> metrics;
    for (const eval::MetricDefinition& metric : task.metrics) metrics.push_back(metric.name);
    const int64_t shots = task.num_fewshot.value_or(0);
    rows.push_back(
        {name, kind, std::to_string(shots), shorten(fmt::format("{}", fmt::join(metrics, ", ")), 48), task.dataset_path});
    list.push_back({{"task", name},
                    {"kind", kind},
                    {"num_fewshot", shots},
                    {"metrics", metrics},
                    {"dataset_path", task.dataset_path},
                    {"dataset_name", task.dataset_name},
                    {"version", task.version},
                    {"origin", task.origin}});
  }
  if (json) return print_json(list);
  print_text(format_table({"Task", "Kind", "Examples", "Metrics", "Data on the Hugging Face Hub"}, rows));
}

}  // namespace

void eval_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"eval", "MODEL...",
       "Evaluates models on local data, each beside the original where one is given: perplexity in two protocols, KL divergence, "
       "multiple\n"
       "choice, numeric answers, reading comprehension, speed and memory. Models are folders, GGUF or TorchScript files, or "
       "org/name in\n"
       "the Hugging Face cache.",
       "  salient eval demo_awq --compare-with models/demo --tasks perplexity,arc \\\n"
       "      --data perplexity=models/demo/data/heldout.txt --data arc=models/demo/data/arc_test.jsonl\n"
       "  salient eval models/demo --tasks openmath --data openmath=models/demo/data/openmath_test.jsonl --limit 100 --json\n"
       "  salient eval models/demo --tasks openmath --data openmath=models/demo/data/openmath_test.jsonl --record answers.jsonl\n"},
      kEvalOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const eval::TaskLibrary library = task_library(arguments);
  if (arguments.flag("list-tasks")) return print_tasks(library, arguments.flag("json"));
  if (arguments.positional().empty()) {
    throw Error(ErrorKind::kInvalidArgument, "salient eval: no model is named")
        .with_hint("salient eval MODEL... --tasks ... --data TASK=FILE");
  }
  if (arguments.flag("log-samples") && !arguments.has("output-path")) {
    throw Error(ErrorKind::kInvalidArgument, "salient eval: --log-samples without --output-path")
        .with_hint("--output-path FOLDER says where they go");
  }
  if (arguments.has("record") && arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient eval: --record with {} models", arguments.positional().size()))
        .with_hint("record one model at a time; --compare-with does not count, the original is not recorded");
  }
  const std::vector<TrackingTarget> targets = tracking_targets(arguments, "eval");
  if (!targets.empty() && arguments.flag("no-store")) {
    throw Error(ErrorKind::kInvalidArgument, "salient eval: --tracking with --no-store")
        .with_hint("what is told waits in the store until it has arrived: leave --no-store out");
  }
  if (arguments.flag("update-card")) {
    for (const std::string& name : arguments.positional()) check_card(models::resolve_model(name));
  }
  const std::vector<eval::TaskRequest> requests = task_requests(arguments, library, "salient eval");
  const eval::TaskRequest* cost_text = arguments.flag("runtime-cost") ? find_text(requests, library) : nullptr;
  if (arguments.has("output-path")) {  // before any work
    for (const std::string& name : arguments.positional()) eval::check_lm_eval_path(arguments.text("output-path"), name);
    if (arguments.has("compare-with")) eval::check_lm_eval_path(arguments.text("output-path"), arguments.text("compare-with"));
  }
  const eval::LanguageModelOptions model_options = language_model_options(arguments);

  ProgressLine progress;
  eval::EvaluationOptions options = evaluation_options(arguments, library);
  options.throughput = !arguments.flag("no-throughput");
  options.observer = [&](const eval::EvaluationProgress& at) {
    progress.show(at.task + (at.is_base ? " (base)" : ""), at.phase, at.done, at.total);
  };

  std::optional<Store> store;
  if (!arguments.flag("no-store")) store.emplace(arguments.text_or("store", "runs/salient.db"));
  // `expected_hash`: as load_hashed_model takes it. Without a store nobody asks for the hash.
  const auto load_model = [&](const std::filesystem::path& path, const eval::LanguageModelOptions& with,
                              const std::string& expected_hash = "") {
    return store ? load_hashed_model(*store, path, with, expected_hash)
                 : HashedModel{{path, ""}, eval::load_language_model(path, with)};
  };
  std::optional<HashedModel> base;
  if (arguments.has("compare-with")) {
    const std::filesystem::path base_folder = models::resolve_model(arguments.text("compare-with"));
    eval::LanguageModelOptions as_stored = model_options;  // the bits that are asked for are the model's, not the original's
    as_stored.decoder.activation_bits = std::nullopt;
    as_stored.decoder.kv_bits = std::nullopt;
    base.emplace(load_model(base_folder, as_stored));
  }
  std::optional<eval::RequestJournal> base_journal;
  if (store && base) base_journal = make_journal(*store, base->files.hash, base->model, arguments.flag("fresh"));
  options.base_journal = base_journal ? &*base_journal : nullptr;
  Json output = Json::array();
  std::optional<eval::ModelResult> known_base;
  std::optional<Error> broken;
  const auto seconds_since_1970 = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  };
  eval::LmEvalRun lm_eval_run{.model_name = {},
                              .limit = arguments.integer_or("limit", 0, 0, 1 << 30),
                              .fewshot_seed = options.fewshot_seed,
                              .bootstrap_draws = options.bootstrap_draws,
                              .fewshot_as_multiturn = options.fewshot_as_multiturn,
                              .system_instruction = options.system_instruction};
  const auto write_results = [&](const eval::Evaluation& evaluation, const std::string& name, Json model) {
    lm_eval_run.model_name = name;
    lm_eval_run.model = std::move(model);
    lm_eval_run.seconds = seconds_since_1970() - lm_eval_run.started;
    const std::filesystem::path file =
        write_lm_eval_files(arguments.text("output-path"), evaluation, lm_eval_run, arguments.flag("log-samples"));
    print_note("results: " + file.string());
  };
  for (const std::string& name : arguments.positional()) {
    const std::filesystem::path folder = models::resolve_model(name);
    std::optional<HashedModel> model(load_model(folder, model_options));
    const EvaluatedModel files = model->files;
    Json lm_eval_facts = lm_eval_model(model->model, options.apply_chat_template);
    lm_eval_run.started = seconds_since_1970();
    std::optional<OnlineCalibration> recorder;
    if (arguments.has("record")) {
      recorder.emplace(OnlineCalibrationOptions{.file = arguments.text("record"),
                                                .max_rows = arguments.integer_or("record-rows", 128, 0, 1 << 30)},
                       model->model);
      options.run_observer = &recorder->observer();
    }
    std::optional<eval::RequestJournal> journal;
    if (store) journal = make_journal(*store, files.hash, model->model, arguments.flag("fresh"));
    options.journal = journal ? &*journal : nullptr;
    eval::Evaluation evaluation =
        eval::evaluate(model->model, base ? &base->model : nullptr, requests, options, known_base ? &*known_base : nullptr);
    progress.finish();
    if (recorder) print_note(describe(recorder->finish(), arguments.text("record")));
    model.reset();
    int64_t evaluation_id = 0;
    // Where the files are others by now: the figures are shown, and kept nowhere.
    const auto store_evaluation = [&]() -> std::optional<Error> {
      if (!store) return std::nullopt;
      std::optional<Error> change = find_change(*store, files, kWhileEvaluated);
      if (!change && base) change = find_change(*store, base->files, kWhileEvaluated);
      if (change) return change;
      evaluation_id = record_evaluation(*store, std::nullopt, evaluation, files, base ? std::optional(base->files) : std::nullopt);
      return std::nullopt;
    };
    const std::optional<Error> changed = store_evaluation();
    if (arguments.has("output-path") && !changed) {
      write_results(evaluation, name, std::move(lm_eval_facts));
      if (evaluation.base && !known_base)  // once for all models
        write_results({*evaluation.base, std::nullopt, {}}, arguments.text("compare-with"),
                      lm_eval_model(base->model, options.apply_chat_template));
    }
    if (evaluation.base) known_base = evaluation.base;
    if (arguments.flag("update-card") && !changed) {
      publish_figures(folder, quality_figures(evaluation.model));
      print_note(fmt::format("figures written into {}", (folder / kModelCard).string()));
    }
    const std::optional<Error> broken_here = changed ? changed : eval::broken_error(evaluation);
    if (!broken) broken = broken_here;
    if (cost_text != nullptr && !broken_here) {
      const auto load = [&](int activation_bits, int kv_bits) {
        eval::LanguageModelOptions rounded = model_options;
        rounded.decoder.activation_bits = activation_bits;
        rounded.decoder.kv_bits = kv_bits;
        return load_model(folder, rounded, files.hash).model;
      };
      evaluation.runtime_costs = eval::measure_runtime_costs(load, *cost_text, options);
      progress.finish();
      const std::optional<Error> changed_since = store_evaluation();  // again, with them
      if (!broken) broken = changed_since;
    }
    if (!targets.empty()) {
      EvaluationFilter of_folder;
      of_folder.model_path = std::filesystem::absolute(folder).lexically_normal().string();
      for (const EvaluationRecord& record : store->list_evaluations(of_folder)) {
        if (record.id == evaluation_id) track_evaluation(*store, targets, record, print_note);
      }
    }
    if (arguments.flag("json")) {
      output.push_back(eval::to_json(evaluation));
    } else {
      print_text(eval::to_table(evaluation) + "\n" + eval::verdict(evaluation) + "\n");
    }
  }
  if (arguments.flag("json")) print_json(output.size() == 1 ? output.front() : output);
  if (broken) throw *broken;  // last, so that everything is seen and kept
}

}  // namespace salient::pipeline
