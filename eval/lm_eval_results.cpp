#include "eval/lm_eval_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <system_error>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "eval/lm_eval_samples.h"
#include "eval/report.h"

namespace salient::eval {
namespace {

constexpr const char* kFormVersion = "0.4.13";

bool is_group(const TaskResult& task) { return task.settings.value("group", false); }

// "acc" -> {"acc", "none"}, "exact_match,strict-match" -> {"exact_match", "strict-match"}.
std::pair<std::string, std::string> metric_and_filter(const std::string& key) {
  const size_t comma = key.find(',');
  return comma == std::string::npos ? std::pair(key, std::string("none")) : std::pair(key.substr(0, comma), key.substr(comma + 1));
}

Json figures_of(const TaskResult& task) {
  Json out = {{"name", task.task}, {"alias", task.config.is_object() ? task.config.value("task_alias", task.task) : task.task}};
  int64_t documents = static_cast<int64_t>(task.documents.size());
  for (const MetricResult& metric : task.metrics) {
    const auto [name, filter] = metric_and_filter(metric.metric);
    out[fmt::format("{},{}", name, filter)] = metric.value.value;
    out[fmt::format("{}_stderr,{}", name, filter)] = metric.value.stderr_of_mean ? Json(*metric.value.stderr_of_mean) : Json("N/A");
    if (is_group(task)) out["sample_count"][fmt::format("{},{}", name, filter)] = metric.n;
    documents = std::max(documents, metric.n);
  }
  out["sample_len"] = documents;
  return out;
}

// The task's keys with the defaults that lm-eval writes, too.
Json config_of(const TaskResult& task) {
  Json out = task.config.is_object() ? task.config : Json::object();
  const auto or_default = [&](const char* key, Json value) {
    if (!out.contains(key)) out[key] = std::move(value);
  };
  or_default("description", "");
  or_default("target_delimiter", " ");
  or_default("fewshot_delimiter", "\n\n");
  or_default("repeats", 1);
  or_default("should_decontaminate", false);
  or_default("unsafe_code", false);
  out["task"] = task.task;
  out["output_type"] = std::string(to_string(task.output_type));
  out["num_fewshot"] = task.settings.value("num_fewshot", 0);
  return out;
}

Json higher_is_better(const TaskResult& task) {
  Json out = Json::object();
  for (const MetricResult& metric : task.metrics) out[metric_and_filter(metric.metric).first] = metric.higher_is_better;
  return out;
}

// [text, id as text]; a token that is not there is [null, "None"].
Json token(const std::string& text, const std::optional<models::TokenId>& id) {
  return {text.empty() ? Json() : Json(text), id ? std::to_string(*id) : "None"};
}

std::string time_stamp(double seconds) {
  const auto whole = static_cast<std::time_t>(std::floor(seconds));
  std::tm parts{};
  ::gmtime_r(&whole, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%S", &parts);
  return fmt::format("{}.{:06d}", text, static_cast<int>((seconds - std::floor(seconds)) * 1e6));
}

bool is_file(const std::filesystem::path& path) { return path.extension() == ".json"; }

std::filesystem::path folder_of(const std::filesystem::path& path, std::string_view model_name) {
  return is_file(path) ? path.parent_path() : path / lm_eval_file_name(model_name);
}

Json text_or_null(const Json& object, const char* key) { return object.contains(key) ? object.at(key) : Json(); }

}  // namespace

Json lm_eval_model(const LanguageModel& model, bool apply_chat_template) {
  const bool pads = !model.pad_text.empty();  // lm-eval takes the end token where a tokenizer has no token to pad with
  Json out = {{"tokenizer_pad_token",
               token(pads ? model.pad_text : model.eos_text, pads ? model.tokenizer.token_to_id(model.pad_text) : model.eos_id)},
              {"tokenizer_eos_token", token(model.eos_text, model.eos_id)},
              {"tokenizer_bos_token", token(model.bos_text, model.bos_id)},
              {"eot_token_id", model.eos_id ? Json(*model.eos_id) : Json()},
              {"max_length", model.max_length}};
  const Json description = describe(model);
  out["dtype"] = description.at("dtype");
  out["device"] = description.at("device");
  if (apply_chat_template && model.chat_template) {
    out["chat_template"] = model.chat_template->source();
    out["chat_template_sha"] = model.chat_template->sha256();
  }
  return out;
}

Json lm_eval_results(const Evaluation& evaluation, const LmEvalRun& run, const Json& hashes) {
  Json out;
  for (const char* key : {"results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"})
    out[key] = Json::object();
  for (const TaskResult& task : evaluation.model.tasks) {
    const std::string& name = task.task;
    out["results"][name] = figures_of(task);
    out["higher_is_better"][name] = higher_is_better(task);
    if (is_group(task)) {
      const std::vector<std::string> members = task.settings.at("tasks").get<std::vector<std::string>>();
      out["groups"][name] = out["results"][name];
      out["group_subtasks"][name] = members;
      out["versions"][name] = nullptr;
      if (!members.empty()) out["n-shot"][name] = out["n-shot"].value(members.front(), 0);
      continue;
    }
    out["configs"][name] = config_of(task);
    out["versions"][name] = text_or_null(out["configs"][name].value("metadata", Json::object()), "version");
    out["n-shot"][name] = task.settings.value("num_fewshot", 0);
    out["n-samples"][name] = {{"original", task.rows}, {"effective", out["results"][name]["sample_len"]}};
  }
  const std::string dtype = run.model.value("dtype", "");
  out["config"] = {{"model", "salient"},
                   {"model_args", {{"pretrained", run.model_name}, {"dtype", dtype}}},
                   {"model_num_parameters", -1},
                   {"model_dtype", "torch." + dtype},
                   {"model_revision", ""},
                   {"model_sha", ""},
                   {"batch_size", nullptr},
                   {"batch_sizes", Json::array()},
                   {"device", run.model.value("device", "cpu")},
                   {"use_cache", nullptr},
                   {"limit", run.limit > 0 ? Json(run.limit) : Json()},
                   {"bootstrap_iters", run.bootstrap_draws},
                   {"gen_kwargs", nullptr},
                   {"random_seed", 0},
                   {"numpy_seed", 1234},
                   {"torch_seed", 1234},
                   {"fewshot_seed", run.fewshot_seed}};
  out["git_hash"] = nullptr;
  out["date"] = run.started;
  out["pretty_env_info"] = "Salient " SALIENT_VERSION;
  out["transformers_version"] = "N/A";
  out["lm_eval_version"] = kFormVersion;
  out["upper_git_hash"] = nullptr;
  for (const char* key : {"tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id", "max_length"})
    out[key] = text_or_null(run.model, key);
  out["task_hashes"] = hashes;
  out["model_source"] = "salient";
  out["model_name"] = run.model_name;
  out["model_name_sanitized"] = lm_eval_file_name(run.model_name);
  out["system_instruction"] = run.system_instruction.empty() ? Json() : Json(run.system_instruction);
  out["system_instruction_sha"] = run.system_instruction.empty() ? Json() : Json(sha256_hex(run.system_instruction));
  out["fewshot_as_multiturn"] = run.fewshot_as_multiturn;
  out["chat_template"] = text_or_null(run.model, "chat_template");
  out["chat_template_sha"] = text_or_null(run.model, "chat_template_sha");
  out["total_evaluation_time_seconds"] = fmt::format("{}", run.seconds);
  out["salient"] = to_json(evaluation);
  return out;
}

std::string lm_eval_file_name(std::string_view model_name) {
  constexpr std::string_view kReplaced = "\"<>:/|\\?*[]";
  std::string out;
  for (size_t i = 0; i < model_name.size(); ++i) {
    if (kReplaced.find(model_name[i]) == std::string_view::npos) {
      out += model_name[i];
    } else if (i == 0 || kReplaced.find(model_name[i - 1]) == std::string_view::npos) {
      out += "__";
    }
  }
  return out;
}

void check_lm_eval_path(const std::filesystem::path& path, std::string_view model_name) {
  const auto refuse = [&](ErrorKind kind, const std::string& reason) {
    throw Error(kind, fmt::format("{}: results cannot be written there: {}", path.string(), reason))
        .with_hint("name a folder that can be made and written to");
  };
  if (is_file(path) && std::filesystem::is_directory(path))
    refuse(ErrorKind::kInvalidArgument, "it is a folder, where a name that ends in .json is a file's");
  const std::filesystem::path folder = folder_of(path, model_name);
  std::error_code code;
  if (!folder.empty()) std::filesystem::create_directories(folder, code);
  if (code) refuse(ErrorKind::kIo, code.message());
  try {
    const AtomicFile probe(folder / "results");  // makes a temporary file, which goes again
  } catch (const Error& error) {
    refuse(ErrorKind::kIo, error.message());
  }
}

std::filesystem::path write_lm_eval_files(const std::filesystem::path& path, const Evaluation& evaluation, const LmEvalRun& run,
                                          bool samples) {
  const std::filesystem::path folder = folder_of(path, run.model_name);
  if (!folder.empty()) std::filesystem::create_directories(folder);
  const std::string time = time_stamp(run.started + run.seconds);
  Json hashes = Json::object();
  std::map<std::string, int> written;
  for (const TaskResult& task : evaluation.model.tasks) {
    if (!samples || task.documents.empty()) continue;
    const std::vector<OrderedJson> entries = lm_eval_samples(task);
    hashes[task.task] = lm_eval_task_hash(entries);
    std::string lines;
    for (const OrderedJson& entry : entries) lines += entry.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
    std::string name = task.task;
    std::replace(name.begin(), name.end(), '/', '_');  // a name may be anything that a YAML file says
    if (const int count = ++written[name]; count > 1) name += fmt::format("_{}", count);
    write_file(folder / fmt::format("samples_{}_{}.jsonl", name, time), lines);
  }
  const std::filesystem::path file = folder / fmt::format("{}_{}.json", is_file(path) ? path.stem().string() : "results", time);
  write_file(file, dump_json(lm_eval_results(evaluation, run, hashes), 2) + "\n");
  return file;
}

}  // namespace salient::eval
