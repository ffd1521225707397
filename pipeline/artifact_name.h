// Names of artifacts: the one place where they are made and taken apart.
//
//   <base_model>-<dataset>_<method>_<peft>_<tag>[_quantized]
//   tag = <quantization method>_w<bits>_<group>[_sym]_head<dtype>        (quant/spec.h)
//
//   Qwen3-0.6B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized
//     base_model Qwen3-0.6B, dataset openmath, method SFT, peft NoPeft, tag AWQ_w4_g128_headfp16
//
// A name is read from its right end, so base_model may hold '-' and '_', dataset '_' but no '-', method and peft '-' but no '_'.
// Allowed are letters, digits, '.', '_' and '-', no "--" or "..", no part that begins or ends with '-' or '.': what a folder may be
// called on every file system and a repository on the Hugging Face Hub, whose limit of 96 characters holds too.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "quant/spec.h"

namespace salient::pipeline {

inline constexpr size_t kLongestArtifactName = 96;

struct ArtifactName {
  std::string base_model;       // "Qwen3-0.6B"
  std::string dataset;          // "openmath"
  std::string method = "SFT";   // of the training
  std::string peft = "NoPeft";  // "LoRA", "QLoRA", ...
  std::string quantization_method = "AWQ";
  quant::QuantizationSpec spec = {};  // a name carries bits, group size, symmetry and head only
  bool quantized = true;              // with "_quantized": the result; without: the name of the job

  bool operator==(const ArtifactName&) const = default;
};

// parse_artifact_name(make_artifact_name(n)) equals n in every field that a name carries. Errors: invalid argument, when a part is
// not allowed (the sanitised form is suggested) or the name gets too long.
std::string make_artifact_name(const ArtifactName& name);
// Nothing when `text` is not exactly such a name.
std::optional<ArtifactName> parse_artifact_name(std::string_view text);

enum class NamePart { kBaseModel, kDataset, kMethod, kPeft };

// The nearest allowed form: the part behind the last '/' of "org/name", other characters replaced by '-' (dataset: '_'), runs
// shortened, ends trimmed. Errors: invalid argument, when nothing is left.
std::string sanitise_name_part(NamePart part, std::string_view text);

}  // namespace salient::pipeline
