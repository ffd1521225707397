// The README.md of an artifact: a model card as the Hugging Face Hub reads it (https://huggingface.co/docs/hub/model-cards), YAML
// between two lines of "---", then Markdown. It follows from quantization_metadata.json alone: the same artifact, the same bytes.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/json.h"

namespace salient::pipeline {

inline constexpr const char* kModelCard = "README.md";

// What a card says of the model that an artifact was made from, goes into the metadata as "source":
// {"name": "Qwen3-0.6B", "base_model": "Qwen/Qwen3-0.6B", "license": "apache-2.0", ...}. `base_model` only for a folder in the
// Hugging Face cache; license, license_name, license_link, language and pipeline_tag as the header of the folder's own README.md
// has them; a header that cannot be read counts as none.
Json describe_source(const std::filesystem::path& model_folder);

// "source"'s name in the metadata, "model" where there is none.
std::string model_name(const Json& metadata);

// `format`: the artifact's, "awq-gemm" or "gguf-q4_k_m"; empty = as the metadata says. Parts whose keys the metadata does not have
// are left out; figures that were measured stand under "evaluation" (pipeline/measured_quality.h).
std::string model_card(const Json& metadata, std::string_view format = "");

// The card of an export, from the metadata of what it was made from: of a model without any, from describe_source.
std::string export_card(const std::filesystem::path& model_folder, std::string_view format);

}  // namespace salient::pipeline
