// Every setting of a quantization, one row each. The `quantization:` section of a run's config, the flags of `salient quantize`,
// AutoAWQ's quant_config and llm-compressor's recipes all read and print settings through these rows; a new setting is a new row of
// the table in quantization_settings.cpp, its reader, where it is more than a line, a function of setting_values.h.
//
// Values come in layers (recipe, quant_config, flags): a later layer's value replaces an earlier one's. They are applied in the
// table's order, the method first, so that single settings override what the method means, wherever they come from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/yaml.h"
#include "pipeline/quantization_config.h"

namespace salient::pipeline {

// How a setting is given on the command line; in YAML it is always "key: value".
enum class SettingForm : uint8_t {
  kFlag,       // --key and --no-key
  kSwitch,     // --key alone: false is the default
  kWord,       // --key WORD, read as YAML reads a plain word
  kText,       // --key TEXT, never anything but text
  kTexts,      // --key TEXT, may be repeated: a list
  kFile,       // --key FILE with the value in YAML
  kOverrides,  // --key PATTERN=bits:3,group_size:64, may be repeated
};

struct QuantizationSetting {
  std::string_view key;      // "group_size"; flags have dashes
  std::string_view aliases;  // other spellings, separated by commas: "q_group_size"
  SettingForm form;
  std::string_view value;  // what stands for the value in --help: "N"
  std::string_view help;   // with the default
  // The setting that this one is another way of giving ("symmetric" -> "zero_point"): in layers either replaces the other. Empty:
  // its own.
  std::string_view same_as;
  // Errors: invalid argument with the place of the value.
  void (*read)(const ConfigNode& value, QuantizationConfig& config);
  Json (*print)(const QuantizationConfig& config);  // nullptr where same_as prints it
};

std::span<const QuantizationSetting> quantization_settings();
// By key or alias; nullptr when there is none.
const QuantizationSetting* find_quantization_setting(std::string_view name);
// Keys and aliases, for "did you mean".
std::vector<std::string> quantization_setting_names();

struct GivenSetting {
  const QuantizationSetting* setting;
  ConfigNode value;
  // Its patterns may match no module: a recipe is written for a family of models ("re:visual.*" is used on a text model too).
  bool may_miss = false;
};
using GivenSettings = std::vector<GivenSetting>;

// One layer out of a map. Errors: invalid argument for an unknown key and for a setting that is given twice under two names.
GivenSettings given_settings(const ConfigNode& section);
// Adds one value. Errors: invalid argument when `given` has one already.
void add_setting(GivenSettings& given, std::string_view name, ConfigNode value);
// `earlier` with the values of `later` in place of its own.
GivenSettings override_settings(GivenSettings earlier, const GivenSettings& later);

// Errors: invalid argument with the place of the value, or with `where` as context for a specification that does not exist.
QuantizationConfig make_quantization_config(const GivenSettings& given, std::string_view where);

// Every row's value by its key: complete, with every default filled in.
Json to_json(const QuantizationConfig& config);

}  // namespace salient::pipeline
