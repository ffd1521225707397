// llm-compressor's recipes (recipe.yaml beside its checkpoints, or as its users write them), read into the settings of a
// quantization.
//
//   recipe    = { NAME_stage: stage ... } | stage          more than one stage is read as one, in order
//   stage     = { NAME_modifiers: modifiers ... } | { modifiers: modifiers } | modifiers
//   modifiers = { AWQModifier: {...}, QuantizationModifier: {...} }
//
//   AWQModifier           mappings, duo_scaling, n_grid; the older form with scheme, targets, ignore and config_groups; smooth_only
//   QuantizationModifier  targets, ignore, scheme (W4A16, W4A16_ASYM, W8A16, ...), config_groups: its weights alone
//   GPTQModifier          the same, with dampening_frac and actorder
//
// What it becomes: AWQ and quantization -> method awq; quantization alone -> rtn; GPTQ alone -> gptq; both -> awq with compensated
// rounding. Groups of targets become overrides; a target that is no class comes with everything else in float. The format is
// compressed-tensors, as llm-compressor writes it. What a recipe does not say (clipping, how codes are rounded after AWQ) stays as
// Salient's methods have it. Names of modules may match nothing, as there: a recipe serves a family of models.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/yaml.h"
#include "pipeline/quantization_settings.h"

namespace salient::pipeline {

struct Recipe {
  GivenSettings settings;
  std::vector<std::string> notes;  // what was read but changes nothing here, with its place
};

// Errors: not found, corruption; invalid argument for a key that the modifier does not have and for a modifier without what it
// needs; unsupported, all with file and line: another modifier, floating-point codes, quantized activations, blocks or whole
// tensors that share a scale.
Recipe read_recipe(const std::filesystem::path& path);
Recipe parse_recipe(const ConfigNode& root);

}  // namespace salient::pipeline
