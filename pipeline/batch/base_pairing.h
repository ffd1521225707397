// Which model a quantized one is compared with.
//
// Evidence, the strongest first; the first that names a model decides:
//   1. --base
//   2. the store: the run that made the artifact knows what it read
//   3. quantization_metadata.json: hashes of the files that it was made from; a model that has the name only, with other files, is
//   refused
//   4. what other tools write: _name_or_path of config.json, base_model of the model card, general.base_model.0.* and general.name
//   of a GGUF file
//   5. the name, but for words about quantization (name_words.h), or the base model of an artifact's name (artifact_name.h)
//   6. the place: it lies inside the base's folder
// Of several models that a name fits, safetensors go before GGUF, and the nearest in the tree is taken; where two are equally near
// it is ambiguous, which is said, and the model is evaluated alone. Nobody is a base whose config.json has another vocabulary,
// width or depth.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/batch/model_listing.h"

namespace salient::pipeline {

struct Pairing {
  std::optional<std::filesystem::path> base;
  std::string base_label;
  std::string evidence;  // of the base; without one why there is none, "" where none is expected
};

struct BaseRule {
  std::string pattern;  // over labels and names, '*', '?', '[...]'; "" = every model that wants a base
  std::filesystem::path base;
};

struct PairingSources {
  std::vector<BaseRule> rules;  // the first that fits counts; a pattern fits float checkpoints, too
  // SHA-256 of a file.
  std::function<std::string(const std::filesystem::path&)> file_sha256;
  // The base that the store has for an artifact; may be empty.
  std::function<std::optional<std::filesystem::path>(const std::filesystem::path&)> recorded_base;
};

// One for each model, in their order.
std::vector<Pairing> pair_with_bases(const std::vector<ListedModel>& models, const PairingSources& sources);

}  // namespace salient::pipeline
