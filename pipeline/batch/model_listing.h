// Every model below a folder: what `salient eval` could be given, and what was left out and why.
//
// A folder with a checkpoint (config.json and safetensors) is one model; so is a folder with config.json or tokenizer.json whose
// only weights are one GGUF or one TorchScript file. All other GGUF and TorchScript files, beside a checkpoint or one another, are
// models of their own. Folders inside a model's folder are looked at, too. Hidden entries, and files that belong to no model, are
// passed over without a word.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/detect.h"

namespace salient::pipeline {

enum class ModelKind { kCheckpoint, kGguf, kTorchscript };

struct ListedModel {
  std::filesystem::path path;  // as `salient eval` takes it
  std::string label;           // path below the folder that was listed; of the Hugging Face cache "org/name"
  std::string name;            // its last part, without ".gguf"
  ModelKind kind = ModelKind::kCheckpoint;
  models::DetectedModel detected;
  bool original = false;   // may stand as a base: weights that are neither packed, rounded nor smoothed
  bool wants_base = true;  // has been made from another model; a float checkpoint has not, or nothing says so
};

struct LeftOut {
  std::filesystem::path path;
  std::string reason;  // "incomplete: ...", "a LoRA adapter ...", the error of a broken file
};

struct ModelListing {
  std::vector<ListedModel> models;  // by path
  std::vector<LeftOut> left_out;    // by path
};

// Folders that are reached in two ways, through links, count once. Errors: not found, invalid argument for a file. What is wrong
// with a model is no error: it is left out.
ModelListing list_models(const std::filesystem::path& folder);

// Names that files and folders have while they are written: ".partial" and ".replaced" of this program, ".tmp", ".incomplete",
// "tmp-checkpoint-500".
bool is_unfinished_name(std::string_view name);

}  // namespace salient::pipeline
