#include "pipeline/training_metadata.h"

#include "common/error.h"
#include "common/file.h"
#include "models/io/adapter.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// "Qwen3-0.6B" for models/Qwen3-0.6B/ and for .../models--Qwen--Qwen3-0.6B/snapshots/<commit>.
std::string folder_name(const fs::path& folder) {
  fs::path path = fs::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const fs::path cached = path.parent_path().parent_path().filename();
  if (path.parent_path().filename() == "snapshots" && cached.string().starts_with("models--")) {
    const std::string name = cached.string();
    return name.substr(name.rfind("--") + 2);
  }
  const std::string name = path.filename().string();
  return name.empty() ? "model" : name;
}

// The sections of the file; a missing one reads as empty.
struct Sections {
  Json root = Json::object();
  Json dataset = Json::object();
  Json training = Json::object();
  std::string where;
};

Json section(const Json& root, const char* key, const std::string& where) {
  const Json value = value_or<Json>(root, key, Json::object(), where);
  if (!value.is_object()) fail(ErrorKind::kCorruption, "{}: key '{}': expected an object, found {}", where, key, value.type_name());
  return value;
}

std::optional<std::string> text_of(const Json& object, const char* key, const std::string& where) {
  std::string text = value_or<std::string>(object, key, "", where);
  return text.empty() ? std::nullopt : std::optional(std::move(text));
}

std::optional<int64_t> count_of(const Json& object, const char* key, const std::string& where) {
  const int64_t count = value_or<int64_t>(object, key, 0, where);
  if (count < 0) fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected a positive number", where, key, count);
  return count == 0 ? std::nullopt : std::optional(count);
}

// What an adapter is called by.
struct AdapterNames {
  std::string base_model;  // empty: not an adapter, or it names none
  std::string peft = "NoPeft";
};

AdapterNames adapter_names(const fs::path& model_folder) {
  if (!models::is_adapter(model_folder)) return {};
  const std::string base = models::adapter_base_name(model_folder);
  return {base.empty() ? "" : folder_name(base), models::adapter_method(model_folder)};
}

}  // namespace

std::optional<fs::path> find_named_file(const fs::path& model_folder, const std::string& given) {
  for (const fs::path& candidate : {model_folder / given, model_folder / "data" / given, fs::path(given)}) {
    std::error_code ignored;
    if (fs::is_regular_file(candidate, ignored)) return candidate;
  }
  return std::nullopt;
}

TrainingMetadata read_training_metadata(const fs::path& model_folder, const TrainingOverrides& overrides) {
  TrainingMetadata metadata;
  Sections file;
  const fs::path path = model_folder / kTrainingMetadataFile;
  if (fs::exists(path)) {
    metadata.file = path;
    file.where = path.string();
    file.root = read_json_file(path);
    file.dataset = section(file.root, "dataset", file.where);
    file.training = section(file.root, "training", file.where);
  }

  const auto choose = [&](const char* name, const std::optional<std::string>& configured, const Json& object, const char* key,
                          const std::string& fallback, const char* fallback_origin) {
    const auto written = text_of(object, key, file.where);  // read even when it is not needed: a broken file is always reported
    metadata.origins[name] = configured ? "configuration" : written ? kTrainingMetadataFile : fallback_origin;
    return configured ? *configured : written.value_or(fallback);
  };
  const AdapterNames adapter = adapter_names(model_folder);
  metadata.base_model =
      adapter.base_model.empty()
          ? choose("base_model", overrides.base_model, file.root, "base_model", folder_name(model_folder), "folder name")
          : choose("base_model", overrides.base_model, file.root, "base_model", adapter.base_model, "adapter_config.json");
  metadata.train_file_given = choose("train_file", overrides.train_file, file.dataset, "train_file", "", "none");
  if (overrides.train_file) {
    metadata.train_file = *overrides.train_file;
  } else if (!metadata.train_file_given.empty()) {
    metadata.train_file = find_named_file(model_folder, metadata.train_file_given);
  }
  const std::string stem = fs::path(metadata.train_file_given).stem().string();
  metadata.dataset_name = choose("dataset_name", overrides.dataset_name, file.dataset, "name", stem.empty() ? "unknown" : stem,
                                 stem.empty() ? "default" : "training file name");
  metadata.question_field = choose("question_field", overrides.question_field, file.dataset, "question_field", "", "none");
  metadata.answer_field = choose("answer_field", overrides.answer_field, file.dataset, "answer_field", "", "none");
  metadata.method = choose("method", overrides.method, file.training, "method", "SFT", "default");
  metadata.peft = choose("peft", overrides.peft, file.training, "peft", adapter.peft,
                         adapter.peft == "NoPeft" ? "default" : "adapter_config.json");
  metadata.system_prompt = choose("system_prompt", overrides.system_prompt, file.root, "system_prompt", "", "none");
  metadata.chat_template_given = choose("chat_template", overrides.chat_template, file.training, "chat_template", "", "none");
  if (overrides.chat_template) {
    metadata.chat_template = *overrides.chat_template;
  } else if (!metadata.chat_template_given.empty()) {
    metadata.chat_template = find_named_file(model_folder, metadata.chat_template_given);
  }
  metadata.max_seq_len = count_of(file.training, "max_seq_len", file.where);
  metadata.origins["max_seq_len"] = metadata.max_seq_len ? kTrainingMetadataFile : "none";
  metadata.rows = count_of(file.dataset, "rows", file.where);
  if (overrides.train_file) metadata.rows.reset();  // the claim is about another file
  metadata.origins["rows"] = metadata.rows ? kTrainingMetadataFile : "none";
  return metadata;
}

Json to_json(const TrainingMetadata& metadata) {
  Json json = {{"base_model", metadata.base_model},
               {"dataset", {{"name", metadata.dataset_name}, {"train_file", metadata.train_file_given}}},
               {"training", {{"method", metadata.method}, {"peft", metadata.peft}}},
               {"system_prompt", metadata.system_prompt},
               {"origins", metadata.origins}};
  Json& dataset = json["dataset"];
  if (!metadata.question_field.empty()) dataset["question_field"] = metadata.question_field;
  if (!metadata.answer_field.empty()) dataset["answer_field"] = metadata.answer_field;
  if (metadata.rows) dataset["rows"] = *metadata.rows;
  if (!metadata.chat_template_given.empty()) json["training"]["chat_template"] = metadata.chat_template_given;
  if (metadata.max_seq_len) json["training"]["max_seq_len"] = *metadata.max_seq_len;
  return json;
}

}  // namespace salient::pipeline
