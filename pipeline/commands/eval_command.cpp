#include <map>

#include "common/error.h"
#include "common/text.h"
#include "eval/evaluate.h"
#include "eval/report.h"
#include "eval/tasks.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/measured_quality.h"
#include "pipeline/online_calibration.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kRows = with_runtime_rows({
    {"tasks", "LIST", "perplexity, openmath, gsm8k, arc, squad_v2: names separated by commas", true},
    {"data", "TASK=FILE", "the data file of a task; once for each task", true},
    {"compare-with", "MODEL", "the original: every metric is compared with it, on the same documents"},
    {"limit", "N", "the first N documents, or windows of text; default: all"},
    {"window", "N", "tokens of a window of text; default: the smaller of 2048 and the model's context"},
    {"apply-chat-template", "", "put prompts into the model's chat template"},
    {"bos", "POLICY", "auto (default: as the tokenizer does), always or never"},
    {"batch-tokens", "N", "padded tokens of a forward pass: bounds memory; default 4096"},
    {"max-new-tokens", "N", "of a generation; default: the task's own"},
    {"no-throughput", "", "do not measure speed"},
    {"record", "FILE.jsonl", "online calibration: add what the model runs to this calibration record, for the next quantization"},
    {"record-rows", "N", "rows that a record keeps, a sample of all; 0: every row; default 128"},
    {"store", "FILE", "database for the results; default runs/salient.db"},
    {"update-card", "", "write the figures into the README.md and quantization_metadata.json of MODEL, a folder that Salient made"},
    {"no-store", "", "do not store the results"},
    {"json", "", "print the results as JSON"},
});

std::vector<eval::TaskRequest> task_requests(const Arguments& arguments) {
  std::map<std::string, std::string> files;  // by the task's own name
  for (const std::string& entry : arguments.values("data")) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos) {
      fail(ErrorKind::kInvalidArgument, "salient eval: --data: found '{}', expected TASK=FILE", entry);
    }
    files[std::string(eval::find_task(entry.substr(0, equals)).name)] = entry.substr(equals + 1);
  }
  std::vector<std::string> names = arguments.list("tasks");
  if (names.empty()) {
    for (const auto& [name, file] : files) names.push_back(name);
  }
  if (names.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "salient eval: no task is named").with_hint("--tasks perplexity --data perplexity=heldout.txt");
  }
  std::vector<eval::TaskRequest> requests;
  for (const std::string& given : names) {
    const std::string name(eval::find_task(given).name);
    if (!files.contains(name)) {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("salient eval: task {} has no data file", name))
          .with_hint(fmt::format("--data {}=FILE; nothing is ever downloaded", name));
    }
    requests.push_back({name, files.at(name), arguments.integer_or("limit", 0, 0, 1 << 30), arguments.integer_or("window", 0, 0, 1 << 20)});
  }
  return requests;
}

}  // namespace

void eval_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"eval", "MODEL...",
       "Evaluates models on local data, each beside the original where one is given: perplexity in two protocols, KL divergence, multiple\n"
       "choice, numeric answers, reading comprehension, speed and memory. Models are folders, GGUF or TorchScript files, or org/name in\n"
       "the Hugging Face cache.",
       "  salient eval demo_awq --compare-with models/demo --tasks perplexity,arc \\\n"
       "      --data perplexity=models/demo/data/heldout.txt --data arc=models/demo/data/arc_test.jsonl\n"
       "  salient eval models/demo --tasks openmath --data openmath=models/demo/data/openmath_test.jsonl --limit 100 --json\n"
       "  salient eval models/demo --tasks openmath --data openmath=models/demo/data/openmath_test.jsonl --record answers.jsonl\n"},
      kRows, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().empty()) {
    throw Error(ErrorKind::kInvalidArgument, "salient eval: no model is named").with_hint("salient eval MODEL... --tasks ... --data TASK=FILE");
  }
  if (arguments.has("record") && arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient eval: --record with {} models", arguments.positional().size()))
        .with_hint("record one model at a time; --compare-with does not count, the original is not recorded");
  }
  if (arguments.flag("update-card")) {
    for (const std::string& name : arguments.positional()) check_card(models::resolve_model(name));
  }
  const std::vector<eval::TaskRequest> requests = task_requests(arguments);
  eval::LanguageModelOptions model_options;
  model_options.decoder = decoder_options(arguments);
  model_options.bos = eval::parse_bos_policy(arguments.text_or("bos", "auto"));

  ProgressLine progress;
  eval::EvaluationOptions options;
  options.apply_chat_template = arguments.flag("apply-chat-template");
  options.batch_tokens = arguments.integer_or("batch-tokens", 4096, 1, 1 << 24);
  options.max_new_tokens = arguments.integer_or("max-new-tokens", 0, 0, 1 << 20);
  options.throughput = !arguments.flag("no-throughput");
  options.observer = [&](const eval::EvaluationProgress& at) {
    progress.show(at.task + (at.is_base ? " (base)" : ""), at.phase, at.done, at.total);
  };

  std::optional<Store> store;
  if (!arguments.flag("no-store")) store.emplace(arguments.text_or("store", "runs/salient.db"));
  std::optional<eval::LanguageModel> base;
  std::filesystem::path base_folder;
  if (arguments.has("compare-with")) {
    base_folder = models::resolve_model(arguments.text("compare-with"));
    eval::LanguageModelOptions as_stored = model_options;  // the bits that are asked for are the model's, not the original's
    as_stored.decoder.activation_bits = std::nullopt;
    as_stored.decoder.kv_bits = std::nullopt;
    base.emplace(eval::load_language_model(base_folder, as_stored));
  }
  Json output = Json::array();
  std::optional<eval::ModelResult> known_base;
  for (const std::string& name : arguments.positional()) {
    const std::filesystem::path folder = models::resolve_model(name);
    const eval::LanguageModel model = eval::load_language_model(folder, model_options);
    std::optional<OnlineCalibration> recorder;
    if (arguments.has("record")) {
      recorder.emplace(OnlineCalibrationOptions{.file = arguments.text("record"), .max_rows = arguments.integer_or("record-rows", 128, 0, 1 << 30)}, model);
      options.run_observer = &recorder->observer();
    }
    const eval::Evaluation evaluation = eval::evaluate(model, base ? &*base : nullptr, requests, options, known_base ? &*known_base : nullptr);
    progress.finish();
    if (recorder) print_note(describe(recorder->finish(), arguments.text("record")));
    if (evaluation.base) known_base = evaluation.base;
    if (store) {
      std::optional<EvaluatedModel> stored_base;
      if (base) stored_base = EvaluatedModel{base_folder, model_hash(*store, base_folder)};
      record_evaluation(*store, std::nullopt, evaluation, {folder, model_hash(*store, folder)}, stored_base);
    }
    if (arguments.flag("update-card")) publish_figures(folder, quality_figures(evaluation.model));
    if (arguments.flag("json")) {
      output.push_back(eval::to_json(evaluation));
    } else {
      print_text(eval::to_table(evaluation) + "\n" + eval::verdict(evaluation) + "\n");
    }
  }
  if (arguments.flag("json")) print_json(output.size() == 1 ? output.front() : output);
}

}  // namespace salient::pipeline
