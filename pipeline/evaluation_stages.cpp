#include "pipeline/evaluation_stages.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "common/error.h"
#include "eval/evaluate.h"
#include "eval/lm_eval_results.h"
#include "eval/prepared_task.h"
#include "eval/report.h"
#include "eval/runtime_cost.h"
#include "eval/sensitivity.h"
#include "eval/sensitivity_report.h"
#include "eval/task_data.h"
#include "eval/task_library.h"
#include "eval/window_text.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/hashed_model.h"
#include "pipeline/journal_store.h"
#include "pipeline/sensitivity_records.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// The two models of a run, loaded when the first stage needs them, and the tasks that there are.
class EvaluatedPair {
 public:
  EvaluatedPair(const RunConfig& config, fs::path base_folder, std::string base_name, std::string name)
      : dtype_(parse_dtype(config.runtime.dtype)),
        device_(parse_device(config.runtime.device)),
        activation_bits_(config.evaluation.activation_bits),
        kv_bits_(config.evaluation.kv_bits),
        compare_(config.evaluation.compare_with_base),
        base_folder_(std::move(base_folder)),
        base_name_(std::move(base_name)),
        name_(std::move(name)),
        tasks_(eval::TaskLibrary::bundled()) {
    if (!config.evaluation.include_path.empty()) tasks_.add_folder(config.evaluation.include_path);
  }

  const eval::TaskLibrary& tasks() const { return tasks_; }
  // What a stage before has loaded serves as long as its files are the same. Errors: those of load_hashed_model.
  const HashedModel& model(Store& store, const fs::path& artifact) {
    if (model_ && find_change(store, model_->files, kWhileEvaluated)) model_.reset();
    if (!model_) model_.emplace(load_hashed_model(store, artifact, options(name_, activation_bits_, kv_bits_)));
    return *model_;
  }
  const HashedModel* base(Store& store) {
    if (!compare_) return nullptr;
    if (base_ && find_change(store, base_->files, kWhileEvaluated)) base_.reset();
    if (!base_) base_.emplace(load_hashed_model(store, base_folder_, options(base_name_, {}, {})));
    return &*base_;
  }

  const std::string& name() const { return name_; }

  // The next stage loads what it needs again.
  void release() {
    model_.reset();
    base_.reset();
  }
  // Another copy, with these bits, of the same files.
  eval::LanguageModel rounded(Store& store, const EvaluatedModel& files, int activation_bits, int kv_bits) const {
    return load_hashed_model(store, files.folder, options(name_, activation_bits, kv_bits), files.hash).model;
  }

 private:
  eval::LanguageModelOptions options(const std::string& name, std::optional<int> activation_bits,
                                     std::optional<int> kv_bits) const {
    eval::LanguageModelOptions options;
    options.decoder = {dtype_, device_, activation_bits, kv_bits};
    options.name = name;
    return options;
  }

  at::ScalarType dtype_;
  at::Device device_;
  std::optional<int> activation_bits_;
  std::optional<int> kv_bits_;
  bool compare_;
  fs::path base_folder_;
  std::string base_name_;
  std::string name_;
  eval::TaskLibrary tasks_;
  std::optional<HashedModel> model_;
  std::optional<HashedModel> base_;
};

// `tasks` outlives the options.
eval::EvaluationOptions evaluation_options(const EvaluationConfig& config, const eval::TaskLibrary& tasks,
                                           const RunObserver& observer) {
  eval::EvaluationOptions options;
  options.tasks = &tasks;
  options.apply_chat_template = config.apply_chat_template;
  options.fewshot_as_multiturn = config.fewshot_as_multiturn;
  options.system_instruction = config.system_instruction;
  options.fewshot_seed = static_cast<uint64_t>(config.fewshot_seed);
  options.batch_tokens = config.batch_tokens;
  options.max_new_tokens = config.max_new_tokens;
  options.throughput = false;
  if (observer.progress) {
    options.observer = [progress = observer.progress](const eval::EvaluationProgress& at) {
      progress(at.task + (at.is_base ? " (base)" : ""), at.phase, at.done, at.total);
    };
  }
  return options;
}

// Settings that choose files and change no figure.
constexpr std::array kFileKeys = {"output_path", "log_samples"};

// Only where they are chosen: what an artifact says itself is part of it.
void add_runtime_bits(Json& settings, const EvaluationConfig& config) {
  if (config.activation_bits) settings["activation_bits"] = *config.activation_bits;
  if (config.kv_bits) settings["kv_bits"] = *config.kv_bits;
}

// "acc 0.6475 (base 0.6475), acc_norm 0.5300 (base 0.5225)"
std::string headline(const eval::ModelResult& result) {
  std::string text;
  for (const eval::TaskResult& task : result.tasks) {
    for (const eval::MetricResult& metric : task.metrics) {
      if (!metric.headline && metric.metric != "kl_divergence") continue;
      text += fmt::format("{}{} {:.4g}", text.empty() ? "" : ", ", metric.metric, metric.value.value);
      if (metric.base) text += fmt::format(" (base {:.4g})", metric.base->base_value);
    }
    for (const eval::HealthFlag& flag : task.flags)
      text += fmt::format("{}{}", text.empty() ? "" : ", ", eval::to_string(flag.kind));
  }
  return text;
}

// The files of a stage's evaluation, of the model and of its base. Gives the model's.
class LmEvalFiles {
 public:
  explicit LmEvalFiles(const EvaluationConfig& config) : path_(config.output_path), samples_(config.log_samples) {}
  bool wanted() const { return !path_.empty(); }

  fs::path write(const eval::Evaluation& evaluation, const eval::LanguageModel& model, const eval::LanguageModel* base,
                 const eval::EvaluationOptions& options, int64_t limit, double started) const {
    eval::LmEvalRun run{.model_name = model.name,
                        .model = lm_eval_model(model, options.apply_chat_template),
                        .started = started,
                        .seconds = seconds_since_1970() - started,
                        .limit = limit,
                        .fewshot_seed = options.fewshot_seed,
                        .bootstrap_draws = options.bootstrap_draws,
                        .fewshot_as_multiturn = options.fewshot_as_multiturn,
                        .system_instruction = options.system_instruction};
    fs::path file = write_lm_eval_files(path_, evaluation, run, samples_);
    if (evaluation.base && base != nullptr) {
      run.model_name = base->name;
      run.model = lm_eval_model(*base, options.apply_chat_template);
      write_lm_eval_files(path_, {*evaluation.base, std::nullopt, {}}, run, samples_);
    }
    return file;
  }

  static double seconds_since_1970() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }

 private:
  fs::path path_;
  bool samples_;
};

StageOutputs evaluate_body(StageContext& context, EvaluatedPair& pair, const std::vector<eval::TaskRequest>& requests,
                           eval::EvaluationOptions options, const LmEvalFiles& files) {
  const fs::path& artifact = context.output("quantize", "artifact");
  Store& store = context.store();
  const HashedModel* base = pair.base(store);
  const eval::LanguageModel* base_model = base != nullptr ? &base->model : nullptr;
  const HashedModel& model = pair.model(store, artifact);
  const double started = LmEvalFiles::seconds_since_1970();
  const eval::RequestJournal journal = make_journal(store, model.files.hash, model.model);
  std::optional<eval::RequestJournal> base_journal;
  std::optional<EvaluatedModel> base_files;
  if (base != nullptr) {
    base_journal = make_journal(store, base->files.hash, base->model);
    base_files = base->files;
  }
  options.journal = &journal;
  options.base_journal = base_journal ? &*base_journal : nullptr;
  const eval::Evaluation evaluation = eval::evaluate(model.model, base_model, requests, options);
  check_unchanged(store, model.files, kWhileEvaluated);
  if (base_files) check_unchanged(store, *base_files, kWhileEvaluated);
  record_evaluation(store, context.run_id(), evaluation, model.files, base_files);
  StageOutputs outputs{{}, {{"evaluation", eval::to_json(evaluation)}}, headline(evaluation.model)};
  if (files.wanted() && !requests.empty())
    outputs.paths["results"] = files.write(evaluation, model.model, base_model, options, requests.front().limit, started);
  return outputs;
}

// Every file that the task reads, so that a change runs it again. Errors: a task without one.
std::map<std::string, fs::path> find_data(const TaskConfig& config, const eval::TaskSelection& selection) {
  std::map<std::string, fs::path> files;
  const eval::DataSource source{config.file, config.splits};
  for (const auto& task : selection.tasks) {
    const std::string prefix = selection.tasks.size() == 1 ? "data" : "data:" + task->name;
    try {
      files[prefix] = eval::find_split(*task, task->evaluated_split(), source);
      if (eval::shots_of(*task, config.num_fewshot) > 0 && !task->shots_split().empty()) {
        files[prefix + ":" + task->shots_split()] = eval::find_split(*task, task->shots_split(), source);
      }
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: {}", config.where, error.message()))
          .with_hint(fmt::format(
              "give it one: - {{name: {}, file: DATA}}; for examples: splits: {{train: DATA}}, or num_fewshot: 0", task->name));
    }
  }
  return files;
}

// The perplexity task on whose text `key` of the config is measured.
std::vector<TaskConfig>::const_iterator find_text(const RunConfig& config, const eval::TaskLibrary& tasks, std::string_view key) {
  const auto text = std::find_if(config.evaluation.tasks.begin(), config.evaluation.tasks.end(),
                                 [&](const TaskConfig& task) { return tasks.find(task.name).name == "perplexity"; });
  if (text == config.evaluation.tasks.end()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("evaluation.{}: there is no task perplexity, on whose text it is measured", key))
        .with_hint("evaluation: tasks: - {name: perplexity, file: TEXT}");
  }
  return text;
}

// A stage that measures something else on the text of the first perplexity task, of which `stages` have the stage.
struct TextStage {
  TaskConfig text;
  Stage stage;  // without its body
};
TextStage text_stage(const std::string& name, const RunConfig& config, const std::vector<Stage>& stages,
                     const eval::TaskLibrary& tasks) {
  const auto text = find_text(config, tasks, name);
  const Stage& read = stages[static_cast<size_t>(text - config.evaluation.tasks.begin())];
  TextStage out{*text, {}};
  out.stage.name = name;
  out.stage.after = read.after;
  out.stage.settings = read.settings;
  for (const char* key : kFileKeys) out.stage.settings.erase(key);
  out.stage.input_files = read.input_files;
  return out;
}

// Which part costs most.
Stage sensitivity_stage(const RunConfig& config, const std::vector<Stage>& stages, const std::shared_ptr<EvaluatedPair>& pair,
                        const RunObserver& observer) {
  auto [text, stage] = text_stage("sensitivity", config, stages, pair->tasks());
  stage.settings["sensitivity"] = config.evaluation.sensitivity;
  eval::SensitivityOptions options;
  options.by = eval::parse_sensitivity_by(config.evaluation.sensitivity);
  if (observer.progress) {
    options.progress = [progress = observer.progress](int64_t done, int64_t total) {
      progress("sensitivity", "blocks", done, total);
    };
  }
  stage.body = [pair, options, file = stage.input_files.begin()->second, wanted = text.window,
                limit = text.limit](StageContext& context) {
    Store& store = context.store();
    const auto& [model_files, model] = pair->model(store, context.output("quantize", "artifact"));
    const auto& [base_files, base] = *pair->base(store);
    const eval::WindowText source = eval::read_window_text(file);
    eval::WindowOptions cut;
    cut.window = std::min({wanted > 0 ? wanted : eval::kSensitivityWindow, model.max_length, base.max_length});
    cut.limit_windows = limit > 0 ? std::min(limit, eval::kSensitivityWindows) : eval::kSensitivityWindows;
    const eval::TokenWindows windows = eval::common_windows(model, base, source, file, cut);
    const SensitivityInputs inputs{model, base, model_files, base_files.hash, windows, source.sha256, ""};
    const eval::Sensitivity found = measure_sensitivity(store, inputs, options, context.run_id());
    const Json json = eval::to_json(found);
    const Json& most = json.at("parts").at(0);
    std::string message = fmt::format("{}: {:.0f} % of the parts' divergence", most.at("part").get<std::string>(),
                                      100 * most.at("share").get<double>());
    return StageOutputs{{}, {{"sensitivity", json}}, std::move(message)};
  };
  return stage;
}

// What 8 bits cost, on the text of the first perplexity task of `stages`.
Stage runtime_cost_stage(const RunConfig& config, const std::vector<Stage>& stages, const std::shared_ptr<EvaluatedPair>& pair,
                         const RunObserver& observer) {
  auto [text, stage] = text_stage("runtime_cost", config, stages, pair->tasks());
  for (const char* key : {"activation_bits", "kv_bits", "compare_with_base"}) stage.settings.erase(key);
  stage.body = [pair, request = eval::TaskRequest{text.name, text.file, text.limit, text.window, text.splits, text.num_fewshot},
                options = evaluation_options(config.evaluation, pair->tasks(), observer)](StageContext& context) {
    Store& store = context.store();
    const fs::path& artifact = context.output("quantize", "artifact");
    const EvaluatedModel model_files{artifact, model_hash(store, artifact)};
    eval::Evaluation evaluation;
    evaluation.model.model = pair->name();
    pair->release();
    try {
      evaluation.runtime_costs = eval::measure_runtime_costs(
          [&](int activation_bits, int kv_bits) { return pair->rounded(store, model_files, activation_bits, kv_bits); }, request,
          options);
    } catch (const Error& error) {  // NaN: the run goes on to its report, as after a task that could not be scored
      if (error.kind() != ErrorKind::kCheckFailed) throw;
      return StageOutputs{{}, {}, "not measured: " + error.message()};
    }
    check_unchanged(store, model_files, kWhileEvaluated);
    record_evaluation(store, context.run_id(), evaluation, model_files, std::nullopt);
    const eval::RuntimeCost& all = evaluation.runtime_costs.back();
    std::string message =
        fmt::format("a{} kv{}: mean KL {:.2g} nats", all.activation_bits, all.kv_bits, all.find("kl_divergence")->value.value);
    return StageOutputs{{}, {{"evaluation", eval::to_json(evaluation)}}, std::move(message)};
  };
  return stage;
}

}  // namespace

std::vector<Stage> evaluate_stages(const RunConfig& config, const fs::path& model_folder, const std::string& base_name,
                                   const std::string& name, const RunObserver& observer) {
  const auto pair = std::make_shared<EvaluatedPair>(config, model_folder, base_name, name);
  const EvaluationConfig& evaluation = config.evaluation;
  std::vector<Stage> stages;
  for (const TaskConfig& task : evaluation.tasks) {
    const eval::TaskSelection selection = with_context(task.where, [&] { return pair->tasks().find(task.name); });
    const std::string& task_name = selection.name;
    const std::map<std::string, fs::path> data_files = find_data(task, selection);
    Stage stage;
    stage.name = "evaluate:" + task_name;
    const auto same_name = [&](const Stage& other) { return other.name.starts_with(stage.name); };
    if (const auto before = std::count_if(stages.begin(), stages.end(), same_name); before > 0)
      stage.name += fmt::format(":{}", before + 1);
    stage.after = {"quantize", "detect"};
    stage.settings = {{"task", task_name},
                      {"task_sha256", selection.sha256},
                      {"limit", task.limit},
                      {"window", task.window},
                      {"batch_tokens", evaluation.batch_tokens},
                      {"apply_chat_template", evaluation.apply_chat_template},
                      {"fewshot_as_multiturn", evaluation.fewshot_as_multiturn},
                      {"system_instruction", evaluation.system_instruction},
                      {"fewshot_seed", evaluation.fewshot_seed},
                      {"max_new_tokens", evaluation.max_new_tokens},
                      {"compare_with_base", evaluation.compare_with_base},
                      {"dtype", config.runtime.dtype},
                      {"device", config.runtime.device}};
    if (task.num_fewshot) stage.settings["num_fewshot"] = *task.num_fewshot;  // else the task's own, which its hash stands for
    add_runtime_bits(stage.settings, evaluation);
    if (!evaluation.output_path.empty()) {  // what is up to date has written its files
      stage.settings[kFileKeys[0]] = evaluation.output_path.string();
      stage.settings[kFileKeys[1]] = evaluation.log_samples;
    }
    stage.input_files = {data_files.begin(), data_files.end()};
    stage.body = [pair, request = eval::TaskRequest{task.name, task.file, task.limit, task.window, task.splits, task.num_fewshot},
                  options = evaluation_options(evaluation, pair->tasks(), observer), files = LmEvalFiles(evaluation)](
                     StageContext& context) { return evaluate_body(context, *pair, {request}, options, files); };
    stages.push_back(std::move(stage));
  }
  if (evaluation.sensitivity != "none") stages.push_back(sensitivity_stage(config, stages, pair, observer));
  if (evaluation.runtime_cost) stages.push_back(runtime_cost_stage(config, stages, pair, observer));
  if (evaluation.throughput && !stages.empty()) {
    Stage stage;
    stage.name = "throughput";
    stage.after = {"quantize", "detect"};
    stage.settings = {{"dtype", config.runtime.dtype},
                      {"device", config.runtime.device},
                      {"threads", config.runtime.threads},
                      {"compare_with_base", evaluation.compare_with_base}};
    add_runtime_bits(stage.settings, evaluation);
    eval::EvaluationOptions options = evaluation_options(evaluation, pair->tasks(), observer);
    options.throughput = true;
    stage.body = [pair, options, files = LmEvalFiles(evaluation)](StageContext& context) {
      StageOutputs outputs = evaluate_body(context, *pair, {}, options, files);
      const Json& speed = outputs.values.at("evaluation").at("model").at("throughput");
      outputs.message =
          fmt::format("prompt {:.0f} tokens/s, generation {:.0f} tokens/s", speed.at("prompt_tokens_per_second").get<double>(),
                      speed.at("generation_tokens_per_second").get<double>());
      return outputs;
    };
    stages.push_back(std::move(stage));
  }
  return stages;
}

}  // namespace salient::pipeline
