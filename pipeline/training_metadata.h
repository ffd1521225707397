// training_metadata.json: what the training platform wrote beside a checkpoint.
//
//   {"base_model": "Qwen3-0.6B",
//    "dataset": {"name": "openmath", "train_file": "openmath_train.jsonl", "rows": 2000, "question_field": "question",
//                "answer_field": "answer"},
//    "training": {"method": "SFT", "peft": "NoPeft", "max_seq_len": 256, "chat_template": "chat_template.jinja"},
//    "system_prompt": "..."}
//
// Every key may be missing; keys that are not listed belong to the platform and are left alone. What it plans for after the
// training, its sections "quantization", "calibration" and "evaluation", is read by pipeline/post_train.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "common/json.h"

namespace salient::pipeline {

// What a configuration says instead of the file; it goes before the file.
struct TrainingOverrides {
  std::optional<std::string> base_model = {};
  std::optional<std::string> dataset_name = {};
  std::optional<std::string> train_file = {};
  std::optional<std::string> question_field = {};
  std::optional<std::string> answer_field = {};
  std::optional<std::string> method = {};
  std::optional<std::string> peft = {};
  std::optional<std::string> system_prompt = {};
  std::optional<std::string> chat_template = {};
};

struct TrainingMetadata {
  // As given, not sanitised; fallback: of a LoRA adapter what its adapter_config.json names, else the folder's name.
  std::string base_model;
  std::string dataset_name;                         // fallback: the training file's name without extension; else "unknown"
  std::optional<std::filesystem::path> train_file;  // a path that can be opened from here, if the file was found
  std::string train_file_given;                     // as it was written; empty when nobody names one
  std::optional<int64_t> rows;                      // as claimed; never counted here
  std::string question_field;                       // empty: found out from the rows
  std::string answer_field;
  std::string method;  // fallback "SFT"
  std::string peft;    // fallback "NoPeft"; of an adapter "LoRA" or "DoRA"
  std::optional<int64_t> max_seq_len;
  std::string system_prompt;  // fallback: none
  // The Jinja file that the training rendered its rows with, if it was found; fallback: none, which means the checkpoint's own
  // template.
  std::optional<std::filesystem::path> chat_template;
  std::string chat_template_given;  // as it was written; empty when nobody names one
  std::filesystem::path file;       // empty when there is none
  std::map<std::string, std::string>
      origins;  // "base_model" -> "training_metadata.json", "configuration", "adapter_config.json", "folder name" or "default"
};

inline constexpr const char* kTrainingMetadataFile = "training_metadata.json";

// A file that a checkpoint's metadata names: in the model folder, its data/ folder or the working directory. Nothing where it is in
// none.
std::optional<std::filesystem::path> find_named_file(const std::filesystem::path& model_folder, const std::string& given);

// Each value from `overrides`, else from <model_folder>/training_metadata.json, else the fallback. Files out of the metadata are
// looked for by find_named_file; those out of the overrides are taken as they are. Errors: corruption (malformed JSON, a key of the
// wrong type), io. A missing file is no error.
TrainingMetadata read_training_metadata(const std::filesystem::path& model_folder, const TrainingOverrides& overrides = {});

// For reports and quantization_metadata.json.
Json to_json(const TrainingMetadata& metadata);

}  // namespace salient::pipeline
