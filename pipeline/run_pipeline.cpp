#include "pipeline/run_pipeline.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "calibration/calibrate.h"
#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "eval/lm_eval_results.h"
#include "eval/read_report.h"
#include "models/io/adapter.h"
#include "models/io/detect.h"
#include "models/io/model_files.h"
#include "models/io/model_folder.h"
#include "models/io/spec_json.h"
#include "pipeline/artifact_files.h"
#include "pipeline/artifact_name.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/evaluation_stages.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/measured_quality.h"
#include "pipeline/model_card.h"
#include "pipeline/report/report_data.h"
#include "pipeline/report/report_page.h"
#include "pipeline/search_result.h"
#include "pipeline/source_files.h"
#include "pipeline/torch_options.h"
#include "pipeline/tracking/run_tracker.h"
#include "pipeline/tracking/tracking_facts.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// "conversation" measured better than "prompt" on held-out rows: docs/calibration.md has the figures and the command.
constexpr calibration::ContentMode kDefaultContent = calibration::ContentMode::kConversation;

std::string artifact_name(const RunConfig& config, const TrainingMetadata& training) {
  ArtifactName name;
  name.base_model = sanitise_name_part(NamePart::kBaseModel, training.base_model);
  name.dataset = sanitise_name_part(NamePart::kDataset, training.dataset_name);
  name.method = sanitise_name_part(NamePart::kMethod, training.method);
  name.peft = sanitise_name_part(NamePart::kPeft, training.peft);
  name.quantization_method = to_upper(config.quantization.awq.method);
  name.spec = config.quantization.awq.spec;
  return make_artifact_name(name);
}

calibration::CalibrateOptions calibrate_options(const RunConfig& config, const TrainingMetadata& training,
                                                const fs::path& model_folder) {
  calibration::CalibrateOptions options;
  options.source = *training.train_file;
  options.dataset = sanitise_name_part(NamePart::kDataset, training.dataset_name);
  options.samples = config.calibration.samples;
  options.seed = config.calibration.seed;
  options.render.content =
      config.calibration.content == "auto" ? kDefaultContent : calibration::parse_content_mode(config.calibration.content);
  options.render.system_prompt = training.system_prompt;
  options.render.fields = {training.question_field, training.answer_field};
  if (config.quantization.text_column != kUsualTextColumn) options.render.fields.text = config.quantization.text_column;
  options.model_folder = model_folder;
  if (training.chat_template) options.chat_template = *training.chat_template;
  options.max_seq_len = config.calibration.max_seq_len;
  options.overwrite = true;
  return options;
}

Stage calibrate_stage(const RunConfig& config, const TrainingMetadata& training, const fs::path& model_folder,
                      const RunObserver& observer) {
  if (!training.train_file) {
    throw Error(ErrorKind::kNotFound, training.train_file_given.empty()
                                          ? std::string("no training set is named: neither dataset.train_file of the config nor "
                                                        "training_metadata.json beside the model has one")
                                          : fmt::format("{}: the training set is not there", training.train_file_given))
        .with_hint("set dataset.train_file, or calibration.file to a calibration file that exists");
  }
  if (!training.chat_template_given.empty() && !training.chat_template) {
    throw Error(ErrorKind::kNotFound,
                fmt::format("{}: the chat template of the training is not there (training.chat_template of {})",
                            training.chat_template_given, training.file.string()))
        .with_hint("put the file into the checkpoint's folder, or set calibration.chat_template");
  }
  const calibration::CalibrateOptions base = calibrate_options(config, training, model_folder);
  Stage stage;
  stage.name = "calibrate";
  stage.settings = {{"dataset", base.dataset},
                    {"samples", base.samples ? Json(*base.samples) : Json("auto")},
                    {"seed", base.seed},
                    {"content", calibration::to_string(base.render.content)},
                    {"system_prompt", base.render.system_prompt},
                    {"question_field", base.render.fields.question},
                    {"answer_field", base.render.fields.answer},
                    {"text_field", base.render.fields.text},
                    {"max_seq_len", base.max_seq_len}};
  stage.input_files = {{"train_file", base.source}, {"tokenizer", models::model_file(model_folder, "tokenizer.json")}};
  if (training.chat_template) stage.input_files["chat_template"] = *training.chat_template;
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"}) {
    if (const fs::path file = models::model_file(model_folder, name); fs::exists(file)) stage.input_files[name] = file;
  }
  stage.body = [base, observer, folder = config.output_folder](StageContext& context) {
    calibration::CalibrateOptions options = base;
    // One folder for each set of inputs: runs with other seeds or sizes must not replace each other's files of the same name.
    options.output_folder = folder / "calibration" / context.key().substr(0, 12);
    const calibration::CalibrateResult result = calibration::calibrate(options);
    for (const std::string& note : result.notes) {
      if (observer.message) observer.message(note);
    }
    const calibration::CalibrationRecord& record = result.record;
    CalibrationRow row;
    row.path = fs::absolute(result.texts_file).lexically_normal().string();
    row.dataset = record.dataset;
    row.rows = record.dataset_rows;
    row.samples = record.samples;
    row.seed = record.seed;
    row.source_hash = record.source_sha256;
    row.template_hash = record.template_sha256;
    row.tokens = record.tokens.total;
    row.record = calibration::to_json(record);
    const int64_t id = context.store().put_calibration(row);
    return StageOutputs{{{"texts", result.texts_file}, {"record", result.record_file}},
                        {{"calibration_id", id}},
                        fmt::format("{} of {} rows, {} tokens, {} truncated, {} duplicates, content: {}", record.samples,
                                    record.dataset_rows, record.tokens.total, record.truncated, record.duplicates, record.content)};
  };
  return stage;
}

// What measurements are added to.
std::set<std::string> measured_files() { return {kModelCard, kMetadataFile}; }

bool draws_calibration(const RunConfig& config) { return config.calibration.file.empty() && config.calibration.sources.empty(); }

QuantizeJob quantize_job(const RunConfig& config, const TrainingMetadata& training, const fs::path& model_folder,
                         const std::string& name, const RunObserver& observer) {
  with_context("quantization", [&] { check_stored(config.quantization.awq); });
  QuantizeJob job;
  const std::string& split = config.quantization.split;
  if (!config.calibration.file.empty()) job.calibration_file = resolve_split(config.calibration.file, split);
  job.sources = config.calibration.sources;
  for (calibration::CalibrationSource& source : job.sources) source.file = resolve_split(source.file, split);
  job.long_rows = calibration::parse_long_rows(config.calibration.long_rows);
  job.loss_mask = calibration::parse_loss_mask(config.calibration.loss_mask);
  job.text_rows = calibration::parse_text_rows(config.calibration.text_rows);
  // Rows of the user's own files; those of the calibrate stage are texts already.
  if (!config.calibration.file.empty() || !config.calibration.sources.empty()) {
    job.render.system_prompt = training.system_prompt;
    if (config.calibration.file.empty()) job.render.fields = {training.question_field, training.answer_field};
  }
  job.seed = config.calibration.seed;
  job.max_seq_len = config.calibration.max_seq_len;
  job.packing = calibration::parse_packing(config.calibration.packing);
  job.model.model_folder = model_folder;
  job.model.output = config.output_folder / name;
  job.model.reuse_output = true;
  job.model.replace_output = config.overwrite;
  job.model.exists_hint = "--set output.overwrite=true replaces it, --set output.folder=DIR keeps both";
  apply_to_job(config.quantization, job);
  job.model.device = parse_device(config.runtime.device);
  job.model.on_message = observer.message;
  if (observer.progress) {
    job.on_generation = [progress = observer.progress](int64_t done, int64_t total) { progress("generate", "steps", done, total); };
    job.model.on_planning = [progress = observer.progress](int64_t done, int64_t total) {
      progress("choose bits", "blocks", done, total);
    };
    job.model.on_progress = [progress = observer.progress](int64_t done, int64_t total) {
      progress("quantize", "blocks", done, total);
    };
  }
  // Of the training set the calibrate stage has drawn them already.
  if (!draws_calibration(config) && config.calibration.samples) job.samples = *config.calibration.samples;
  job.cache = config.store.parent_path() / "cache";
  return job;
}

// `job`: of quantize_job.
Stage quantize_stage(const RunConfig& config, const QuantizeJob& job, const std::string& name, const std::string& dataset) {
  const bool own_calibration = draws_calibration(config);
  Stage stage;
  stage.name = "quantize";
  Json settings = to_json(config.quantization);
  settings.erase("max_memory");  // changes nothing of the result
  stage.settings = {{"quantization", std::move(settings)},   {"max_seq_len", config.calibration.max_seq_len},
                    {"packing", config.calibration.packing}, {"calibration", to_json(config).at("calibration")},
                    {"output", job.model.output.string()},   {"device", config.runtime.device}};
  const std::vector<fs::path> folders = models::model_folders(job.model.model_folder);
  stage.input_files = {{"model", job.model.model_folder}};
  if (folders.size() > 1) stage.input_files["adapter_base"] = folders.back();
  if (own_calibration) {
    stage.after = {"calibrate"};
  } else if (job.sources.empty()) {
    stage.input_files["calibration"] = job.calibration_file;
  }
  if (config.quantization.awq.search != nullptr) stage.input_files["search"] = config.quantization.awq.search->file;
  if (!job.sources.empty()) stage.settings["calibration_fields"] = {job.render.fields.question, job.render.fields.answer};
  for (const calibration::CalibrationSource& source : job.sources)
    stage.input_files["calibration:" + calibration::domain_of(source)] = source.file;
  stage.body = [job = QuantizeJob(job), own_calibration, name, dataset](StageContext& context) mutable {
    if (own_calibration) job.calibration_file = context.output("calibrate", "texts");
    job.model.source_state = source_state(job.model.model_folder);
    job.model.source_hashes = stored_source_hashes(context.store(), job.model.model_folder);
    const QuantizeJobResult result = run_quantize_job(job);
    ArtifactRecord artifact;
    artifact.run_id = context.run_id();
    artifact.name = name;
    artifact.path = fs::absolute(result.model.folder).lexically_normal().string();
    artifact.format = to_string(job.model.awq.format);
    artifact.method = to_upper(job.model.awq.method);
    artifact.spec = models::spec_to_json(job.model.awq.spec);
    artifact.base_model_path = fs::absolute(job.model.model_folder).lexically_normal().string();
    artifact.base_model_hash = model_hash(context.store(), job.model.model_folder);
    artifact.dataset = dataset;
    if (own_calibration) artifact.calibration_id = context.value("calibrate", "calibration_id").get<int64_t>();
    artifact.bytes = static_cast<int64_t>(result.model.bytes);
    for (const auto& entry : fs::directory_iterator(result.model.folder)) {
      const std::string file = entry.path().filename().string();
      if (!measured_files().contains(file)) artifact.files[file] = context.store().file_sha256(entry.path());
    }
    artifact.metadata = read_json_file(result.model.folder / "quantization_metadata.json");
    context.store().put_artifact(artifact);
    const Json summary = summarize_reports(result.model.reports);
    return StageOutputs{{{"artifact", result.model.folder}},
                        summary,
                        fmt::format("{} linears, {}, {:.0f} % of the rounding error left", result.model.reports.size(),
                                    human_bytes(result.model.bytes), 100 * summary["error_ratio"].get<double>()),
                        measured_files()};
  };
  return stage;
}

Stage detect_stage(const AwqOptions& awq) {
  const quant::QuantizationSpec& wanted = awq.spec;
  const bool packed = row_of(awq.format).convertible() && !awq.export_compatible;
  Stage stage;
  stage.name = "detect";
  stage.after = {"quantize"};
  stage.settings = {{"spec", models::spec_to_json(wanted)}, {"format", to_string(awq.format)}};
  const bool gguf = gguf_format_of(awq.format) != nullptr && !awq.export_compatible;
  stage.body = [wanted, packed, gguf](StageContext& context) {
    const fs::path& artifact = context.output("quantize", "artifact");
    const models::DetectedModel found = models::detect_model(artifact);
    if (!packed && found.contradictions.empty() && (!gguf || found.format == "gguf"))
      return StageOutputs{{}, {{"format", found.format}}, found.format};
    if (!found.contradictions.empty() || gguf || !found.spec || found.spec->weight_bits != wanted.weight_bits ||
        found.spec->group_size != wanted.group_size) {
      throw Error(ErrorKind::kInternal,
                  fmt::format("{}: the artifact is not detected as what was asked for ({}): {}", artifact.string(),
                              quant::to_string(wanted), found.contradictions.empty() ? found.format : found.contradictions.front()))
          .with_code("SALIENT_DETECTION_FAILED")
          .with_hint("salient inspect shows the evidence");
    }
    return StageOutputs{{}, {{"format", found.format}}, fmt::format("{}, {}", found.format, quant::to_string(*found.spec))};
  };
  return stage;
}

// Of a headline score what the base's has more, as a share of it; of a perplexity by how much the probability of a token fell.
std::optional<double> lost_share(const eval::MetricResult& metric) {
  if (!metric.base) return std::nullopt;
  if (metric.headline && metric.base->retention) return 1.0 - metric.base->retention->value;
  if (!metric.metric.ends_with("perplexity") || metric.value.value <= 0) return std::nullopt;
  return 1.0 - metric.base->base_value / metric.value.value;
}

}  // namespace

Json stored_source_hashes(Store& store, const fs::path& model_folder) {
  return hash_source_files(model_folder, [&](const fs::path& file) { return store.file_sha256(file); });
}

void check_retention(const eval::Evaluation& evaluation, double most) {
  std::vector<std::string> missed;
  for (const eval::TaskResult& task : evaluation.model.tasks) {
    for (const eval::MetricResult& metric : task.metrics) {
      const std::optional<double> lost = lost_share(metric);
      if (!lost || *lost <= most) continue;
      missed.push_back(fmt::format("{} {}: {:.4f} against {:.4f} of the base, {:.1f} % of it lost", task.task, metric.metric,
                                   metric.value.value, metric.base->base_value, 100 * *lost));
    }
  }
  if (missed.empty()) return;
  throw Error(ErrorKind::kCheckFailed,
              fmt::format("{}; evaluation.max_retention_loss allows {:.1f} %", fmt::join(missed, "; "), 100 * most))
      .with_code("ACCURACY_DEGRADATION")
      .with_hint("try a smaller quantization.group_size or more calibration.samples; the artifact and all results are kept");
}

RunPlan plan_run(const RunConfig& config, const RunObserver& observer) {
  RunPlan plan;
  plan.config = config;
  plan.model_folder = models::resolve_model_folder(config.model);
  if (!config.base.empty()) {
    if (!models::is_adapter(plan.model_folder)) {
      fail(ErrorKind::kInvalidArgument, "model.base is {}, but {} is not a LoRA adapter, which has a base", config.base,
           plan.model_folder.string());
    }
    models::set_adapter_base(plan.model_folder, config.base);
  }
  plan.training = read_training_metadata(plan.model_folder, config.training);
  plan.artifact_name = artifact_name(config, plan.training);
  if (draws_calibration(config)) {
    plan.stages.push_back(calibrate_stage(config, plan.training, plan.model_folder, observer));
  }
  plan.job = quantize_job(config, plan.training, plan.model_folder, plan.artifact_name, observer);
  plan.stages.push_back(quantize_stage(config, plan.job, plan.artifact_name, plan.training.dataset_name));
  plan.stages.push_back(detect_stage(config.quantization.awq));
  const std::string base_name = sanitise_name_part(NamePart::kBaseModel, plan.training.base_model);
  for (Stage& stage : evaluate_stages(config, plan.model_folder, base_name, plan.artifact_name, observer)) {
    plan.stages.push_back(std::move(stage));
  }
  return plan;
}

namespace {

// Always anew: other models of the same base may have been evaluated since.
fs::path write_page(Store& store, const RunReport& report) {
  const std::string artifact = fs::absolute(report.artifact).lexically_normal().string();
  if (report.artifact.empty() || store.list_evaluations({"", artifact, std::nullopt, 1}).empty()) return {};
  const fs::path page = store.path().parent_path() / fmt::format("run_{}.html", report.run_id);
  write_file(page, report_page(report_data(store, {"", report.run_id})));
  return page;
}

RunTracker make_tracker(Store& store, const RunPlan& plan, const RunObserver& observer) {
  if (plan.config.tracking.empty()) return {store, {}, "", false, observer.message};
  std::vector<std::string> keys;
  bool does_work = false;
  try {
    for (const PlannedStage& stage : plan_stages(store, plan.config.name, plan.stages)) {
      keys.push_back(stage.key);
      does_work = does_work || stage.runs;
    }
  } catch (const Error&) {  // the run will fail over it, which is told like any other failure
    does_work = true;
  }
  return {store, plan.config.tracking, run_identity(plan.config.name, to_json(plan.config), keys), does_work, observer.message};
}

RunReport execute_stages(Store& store, const RunPlan& plan, const StageOptions& options) {
  const RunOutcome outcome = run_stages(store, plan.config.name, to_json(plan.config), plan.stages, options);
  RunReport report;
  report.run_id = outcome.run_id;
  report.stages_run = outcome.stages_run;
  report.stages_skipped = outcome.stages_skipped;
  for (const Stage& stage : plan.stages) {
    const StageOutputs& outputs = outcome.outputs.at(stage.name);
    if (outputs.paths.contains("artifact")) report.artifact = outputs.paths.at("artifact");
    if (outputs.paths.contains("texts")) report.calibration_file = outputs.paths.at("texts");
    if (outputs.values.contains("evaluation")) {
      eval::append(report.evaluation, eval::evaluation_from_json(outputs.values.at("evaluation"), stage.name));
    }
  }
  if (const Json figures = quality_figures(report.evaluation.model); !figures.empty()) publish_figures(report.artifact, figures);
  report.page = write_page(store, report);
  return report;
}

}  // namespace

RunReport execute_run(Store& store, const RunPlan& plan, const RunObserver& observer) {
  if (const fs::path& files = plan.config.evaluation.output_path; !files.empty())
    with_context("evaluation.output_path", [&] { eval::check_lm_eval_path(files, plan.artifact_name); });
  RunTracker tracker = make_tracker(store, plan, observer);
  int64_t run_id = 0;
  StageOptions options;
  options.on_message = observer.message;
  options.on_recorded = [&](int64_t id) {
    run_id = id;
    tracker.update(id);
  };
  try {
    RunReport report = execute_stages(store, plan, options);
    tracker.finish(run_id);
    report.tracking = tracker.summary();
    return report;
  } catch (...) {
    if (run_id != 0) tracker.finish(run_id);
    throw;
  }
}

}  // namespace salient::pipeline
