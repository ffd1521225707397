// training_metadata.json: what the training platform wrote beside a checkpoint.
//
//   {"base_model": "Qwen3-0.6B",
//    "dataset": {"name": "openmath", "train_file": "openmath_train.jsonl", "rows": 2000, "question_field": "question",
//                "answer_field": "answer"},
//    "training": {"method": "SFT", "peft": "NoPeft", "max_seq_len": 256},
//    "system_prompt": "..."}
//
// Every key may be missing; keys that are not listed belong to the platform and are left alone.
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
};

struct TrainingMetadata {
  std::string base_model;                           // as given, not sanitised; fallback: the folder's name
  std::string dataset_name;                         // fallback: the training file's name without extension; else "unknown"
  std::optional<std::filesystem::path> train_file;  // a path that can be opened from here, if the file was found
  std::string train_file_given;                     // as it was written; empty when nobody names one
  std::optional<int64_t> rows;                      // as claimed; never counted here
  std::string question_field;                       // empty: found out from the rows
  std::string answer_field;
  std::string method;  // fallback "SFT"
  std::string peft;    // fallback "NoPeft"
  std::optional<int64_t> max_seq_len;
  std::string system_prompt;   // fallback: none
  std::filesystem::path file;  // empty when there is none
  std::map<std::string, std::string>
      origins;  // "base_model" -> "training_metadata.json", "configuration", "folder name" or "default"
};

// Each value from `overrides`, else from <model_folder>/training_metadata.json, else the fallback. A train_file out of the metadata
// is looked for in the model folder, its data/ folder and the working directory; one out of the overrides is taken as it is.
// Errors: corruption (malformed JSON, a key of the wrong type), io. A missing file is no error.
TrainingMetadata read_training_metadata(const std::filesystem::path& model_folder, const TrainingOverrides& overrides = {});

// For reports and quantization_metadata.json.
Json to_json(const TrainingMetadata& metadata);

}  // namespace salient::pipeline
