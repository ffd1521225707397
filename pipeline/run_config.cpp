#include "pipeline/run_config.h"

#include <limits>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/setting_values.h"

namespace salient::pipeline {
namespace {

using Keys = std::vector<std::string>;

template <typename T, typename Read>
void set_if(const ConfigNode& section, std::string_view key, T& target, Read&& read) {
  if (const ConfigNode& node = section.get(key); !node.is_null()) target = read(node);
}

void set_bool(const ConfigNode& section, std::string_view key, bool& target) {
  set_if(section, key, target, [](const ConfigNode& node) { return node.as_bool(); });
}
void set_count(const ConfigNode& section, std::string_view key, int64_t& target, int64_t least) {
  set_if(section, key, target, [&](const ConfigNode& node) { return node.as_int64(least, kMostCount); });
}
void set_choice(const ConfigNode& section, std::string_view key, std::string& target, const Keys& choices) {
  set_if(section, key, target, [&](const ConfigNode& node) { return node.as_choice(choices); });
}
template <typename T>
void set_text(const ConfigNode& section, std::string_view key, T& target) {
  set_if(section, key, target, read_text);
}

void read_model(const ConfigNode& root, RunConfig& config) {
  const ConfigNode& model = root.get("model");
  model.check_keys(Keys{"path", "base", "base_model", "method", "peft"});
  set_text(model, "path", config.model);
  set_text(model, "base", config.base);
  if (config.model.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: key 'model.path' is missing, expected a model folder or org/name", root.where()))
        .with_hint("add 'model: {path: models/demo}', or --set model.path=models/demo");
  }
  set_text(model, "base_model", config.training.base_model);
  set_text(model, "method", config.training.method);
  set_text(model, "peft", config.training.peft);
}

void read_dataset(const ConfigNode& dataset, TrainingOverrides& training) {
  dataset.check_keys(Keys{"name", "train_file", "question_field", "answer_field"});
  set_text(dataset, "name", training.dataset_name);
  set_text(dataset, "train_file", training.train_file);
  set_text(dataset, "question_field", training.question_field);
  set_text(dataset, "answer_field", training.answer_field);
}

calibration::CalibrationSource read_source(const ConfigNode& node) {
  calibration::CalibrationSource source;
  if (node.kind() == ConfigNode::Kind::kScalar) {
    source.file = read_text(node);
    return source;
  }
  node.check_keys(Keys{"file", "weight", "samples", "domain"});
  set_text(node, "file", source.file);
  if (source.file.empty()) node.reject("a calibration file or {file: ..., weight: ...}");
  set_if(node, "weight", source.weight, [](const ConfigNode& weight) { return weight.as_double(0); });
  set_count(node, "samples", source.samples, 0);
  set_text(node, "domain", source.domain);
  return source;
}

void read_calibration(const ConfigNode& node, RunConfig& config) {
  node.check_keys(Keys{"samples", "seed", "content", "system_prompt", "max_seq_len", "packing", "file", "sources", "long_rows",
                       "loss_mask", "text_rows", "chat_template"});
  CalibrationConfig& calibration = config.calibration;
  if (const ConfigNode& samples = node.get("samples"); !samples.is_null() && samples.to_json() != "auto") {
    if (!samples.to_json().is_number_integer()) samples.reject("'auto' or a number of rows");
    calibration.samples = samples.as_int64(1, kMostCount);
  }
  set_if(node, "seed", calibration.seed, [](const ConfigNode& seed) { return static_cast<uint64_t>(seed.as_int64(0)); });
  set_choice(node, "content", calibration.content, {"auto", "prompt", "conversation"});
  set_if(node, "system_prompt", config.training.system_prompt, [](const ConfigNode& prompt) { return prompt.as_string(); });
  set_text(node, "chat_template", config.training.chat_template);
  set_count(node, "max_seq_len", calibration.max_seq_len, 1);
  set_choice(node, "packing", calibration.packing, {"concat", "rows"});
  set_text(node, "file", calibration.file);
  set_choice(node, "long_rows", calibration.long_rows, {"split", "cut", "discard"});
  set_choice(node, "loss_mask", calibration.loss_mask, {"all", "response"});
  set_choice(node, "text_rows", calibration.text_rows, {"lines", "paragraphs", "file"});
  const ConfigNode& sources = node.get("sources");
  if (sources.is_null()) return;
  if (!calibration.file.empty()) sources.reject("either file or sources, not both");
  for (const ConfigNode& source : sources.list()) calibration.sources.push_back(read_source(source));
  with_context(sources.where(), [&] { calibration::check_sources(calibration.sources); });
}

// AutoAWQ's names of calibration settings are allowed in the quantization section.
void read_quantization(const ConfigNode& root, RunConfig& config) {
  const ConfigNode& node = root.get("quantization");
  config.quantization = make_quantization_config(given_settings(node), node.where());
  if (config.quantization.awq.search_only)
    node.get("format").reject("a format of a model, which a run evaluates: salient quantize writes awq-search");
  const ConfigNode& calibration = root.get("calibration");
  const auto reject_twice = [&](const char* key) {
    if (calibration.has(key)) calibration.get(key).reject("no value: the quantization section says the same with AutoAWQ's name");
  };
  if (config.quantization.max_calib_samples) {
    reject_twice("samples");
    config.calibration.samples = *config.quantization.max_calib_samples;
  }
  if (config.quantization.max_calib_seq_len) {
    reject_twice("max_seq_len");
    config.calibration.max_seq_len = *config.quantization.max_calib_seq_len;
  }
}

TaskConfig read_task(const ConfigNode& node) {
  TaskConfig task;
  task.where = node.where();
  if (node.kind() == ConfigNode::Kind::kScalar) {
    task.name = read_text(node);
    return task;
  }
  if (node.is_null()) node.reject("a task name or {name: ..., file: ...}");
  node.check_keys(Keys{"name", "file", "limit", "window", "splits", "num_fewshot"});
  set_text(node, "name", task.name);
  if (task.name.empty())
    fail(ErrorKind::kInvalidArgument, "{}: '{}' has no name, expected {{name: ..., file: ...}}", node.where(), node.path());
  set_text(node, "file", task.file);
  set_count(node, "limit", task.limit, 0);
  set_count(node, "window", task.window, 0);
  for (const auto& [split, file] : node.get("splits").map()) task.splits[split] = read_text(file);
  set_if(node, "num_fewshot", task.num_fewshot, [](const ConfigNode& shots) { return shots.as_int64(0, kMostCount); });
  return task;
}

void read_evaluation(const ConfigNode& node, EvaluationConfig& evaluation) {
  node.check_keys(Keys{"tasks", "batch_tokens", "apply_chat_template", "fewshot_as_multiturn", "system_instruction", "fewshot_seed",
                       "include_path", "output_path", "log_samples", "max_new_tokens", "throughput", "compare_with_base",
                       "activation_bits", "kv_bits", "runtime_cost", "sensitivity", "max_retention_loss"});
  for (const ConfigNode& task : node.get("tasks").list()) evaluation.tasks.push_back(read_task(task));
  set_count(node, "batch_tokens", evaluation.batch_tokens, 1);
  set_bool(node, "apply_chat_template", evaluation.apply_chat_template);
  set_bool(node, "fewshot_as_multiturn", evaluation.fewshot_as_multiturn);
  set_if(node, "system_instruction", evaluation.system_instruction, [](const ConfigNode& text) { return text.as_string(); });
  set_if(node, "fewshot_seed", evaluation.fewshot_seed, [](const ConfigNode& seed) { return seed.as_int64(0); });
  set_text(node, "include_path", evaluation.include_path);
  set_text(node, "output_path", evaluation.output_path);
  set_bool(node, "log_samples", evaluation.log_samples);
  if (evaluation.log_samples && evaluation.output_path.empty())
    node.get("log_samples").reject("false without output_path, which says where they go");
  set_count(node, "max_new_tokens", evaluation.max_new_tokens, 0);
  set_bool(node, "throughput", evaluation.throughput);
  set_bool(node, "compare_with_base", evaluation.compare_with_base);
  const auto runtime_bits = [](const ConfigNode& bits) { return read_runtime_bits(bits, {8, 16}); };
  set_if(node, "activation_bits", evaluation.activation_bits, runtime_bits);
  set_if(node, "kv_bits", evaluation.kv_bits, runtime_bits);
  set_bool(node, "runtime_cost", evaluation.runtime_cost);
  set_choice(node, "sensitivity", evaluation.sensitivity, {"none", "block", "projection", "kind"});
  if (evaluation.sensitivity != "none" && !evaluation.compare_with_base) {
    node.get("sensitivity").reject("none while compare_with_base is false: the parts are exchanged with the base's");
  }
  set_if(node, "max_retention_loss", evaluation.max_retention_loss, [](const ConfigNode& loss) { return loss.as_double(0, 1); });
  if (evaluation.max_retention_loss && !evaluation.compare_with_base) {
    node.get("max_retention_loss").reject("no bound while compare_with_base is false: there is nothing to compare with");
  }
}

void read_runtime(const ConfigNode& node, RuntimeConfig& runtime) {
  node.check_keys(Keys{"threads", "device", "dtype"});
  set_if(node, "threads", runtime.threads, [](const ConfigNode& threads) { return threads.as_int64(0, 4096); });
  set_choice(node, "device", runtime.device, {"cpu", "cuda"});
  set_choice(node, "dtype", runtime.dtype, {"float32", "bfloat16"});
}

Json optional_json(const auto& value) { return value ? Json(*value) : Json(); }

}  // namespace

RunConfig parse_run_config(const ConfigNode& root, std::string_view default_name) {
  root.check_keys(Keys{"name", "model", "dataset", "calibration", "quantization", "evaluation", "output", "tracking", "runtime"});
  RunConfig config;
  config.name = default_name;
  set_text(root, "name", config.name);
  read_model(root, config);
  read_dataset(root.get("dataset"), config.training);
  read_calibration(root.get("calibration"), config);
  read_quantization(root, config);
  read_evaluation(root.get("evaluation"), config.evaluation);
  const ConfigNode& output = root.get("output");
  output.check_keys(Keys{"folder", "store", "overwrite"});
  set_text(output, "folder", config.output_folder);
  set_text(output, "store", config.store);
  if (output.has("overwrite")) config.overwrite = output.get("overwrite").as_bool();
  config.tracking = read_tracking(root.get("tracking"));
  read_runtime(root.get("runtime"), config.runtime);
  return config;
}

RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  ConfigNode root = ConfigNode::load(path);
  for (const std::string& assignment : overrides) root.apply_override(assignment);
  return parse_run_config(root, path.stem().string());
}

Json to_json(const RunConfig& config) {
  const TrainingOverrides& training = config.training;
  const CalibrationConfig& calibration = config.calibration;
  const EvaluationConfig& evaluation = config.evaluation;
  Json tasks = Json::array();
  for (const TaskConfig& task : evaluation.tasks) {
    tasks.push_back({{"name", task.name}, {"file", task.file.string()}, {"limit", task.limit}, {"window", task.window}});
    for (const auto& [split, file] : task.splits) tasks.back()["splits"][split] = file.string();
    if (task.num_fewshot) tasks.back()["num_fewshot"] = *task.num_fewshot;
  }
  Json sources = Json::array();
  for (const calibration::CalibrationSource& source : calibration.sources) {
    sources.push_back({{"file", source.file.string()},
                       {"weight", optional_json(source.weight)},
                       {"samples", source.samples},
                       {"domain", calibration::domain_of(source)}});
  }
  return {
      {"name", config.name},
      {"model",
       {{"path", config.model},
        {"base", config.base},
        {"base_model", optional_json(training.base_model)},
        {"method", optional_json(training.method)},
        {"peft", optional_json(training.peft)}}},
      {"dataset",
       {{"name", optional_json(training.dataset_name)},
        {"train_file", optional_json(training.train_file)},
        {"question_field", optional_json(training.question_field)},
        {"answer_field", optional_json(training.answer_field)}}},
      {"calibration",
       {{"samples", calibration.samples ? Json(*calibration.samples) : Json("auto")},
        {"seed", calibration.seed},
        {"content", calibration.content},
        {"system_prompt", optional_json(training.system_prompt)},
        {"chat_template", optional_json(training.chat_template)},
        {"max_seq_len", calibration.max_seq_len},
        {"packing", calibration.packing},
        {"file", calibration.file.string()},
        {"sources", sources},
        {"long_rows", calibration.long_rows},
        {"loss_mask", calibration.loss_mask},
        {"text_rows", calibration.text_rows}}},
      {"quantization", to_json(config.quantization)},
      {"evaluation",
       {{"tasks", tasks},
        {"batch_tokens", evaluation.batch_tokens},
        {"apply_chat_template", evaluation.apply_chat_template},
        {"fewshot_as_multiturn", evaluation.fewshot_as_multiturn},
        {"system_instruction", evaluation.system_instruction},
        {"fewshot_seed", evaluation.fewshot_seed},
        {"include_path", evaluation.include_path.string()},
        {"output_path", evaluation.output_path.string()},
        {"log_samples", evaluation.log_samples},
        {"max_new_tokens", evaluation.max_new_tokens},
        {"throughput", evaluation.throughput},
        {"compare_with_base", evaluation.compare_with_base},
        {"activation_bits", optional_json(evaluation.activation_bits)},
        {"kv_bits", optional_json(evaluation.kv_bits)},
        {"runtime_cost", evaluation.runtime_cost},
        {"sensitivity", evaluation.sensitivity},
        {"max_retention_loss", optional_json(evaluation.max_retention_loss)}}},
      {"output", {{"folder", config.output_folder.string()}, {"store", config.store.string()}, {"overwrite", config.overwrite}}},
      {"tracking", to_json(config.tracking)},
      {"runtime", {{"threads", config.runtime.threads}, {"device", config.runtime.device}, {"dtype", config.runtime.dtype}}}};
}

}  // namespace salient::pipeline
