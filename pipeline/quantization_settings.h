// Every setting of a quantization, one row each. The `quantization:` section of a run's config, the flags of `salient quantize`,
// AutoAWQ's quant_config and llm-compressor's recipes all read and print settings through these rows; a new setting is a new row of
// the table in quantization_settings.cpp.
//
// Values come in layers (recipe, quant_config, flags): a later layer's value replaces an earlier one's. They are applied in the
// table's order, the method first, so that single settings override what the method means, wherever they come from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/yaml.h"
#include "pipeline/awq_options.h"
#include "pipeline/quantize_job.h"

namespace salient::pipeline {

struct QuantizationConfig {
  AwqOptions awq;
  uint64_t max_shard_bytes = 5'000'000'000;
  uint64_t max_memory_bytes = 0;  // refuse to start when more may be needed; 0 = what is free
  int64_t batch_tokens = 4096;    // of one forward pass
  // Tokens that the float model writes itself, as a share of the calibration's; nothing = 0.1 with method awq, else none.
  std::optional<double> self_generated;
  // AutoAWQ's names of what is also set elsewhere; nothing = as set there.
  std::optional<int64_t> n_parallel_calib_samples;  // rows of max_seq_len tokens in one forward pass, instead of batch_tokens
  std::optional<int64_t> max_calib_samples;         // calibration.samples
  std::optional<int64_t> max_calib_seq_len;         // calibration.max_seq_len
  std::string split = "train";                      // of a folder of calibration files: <split>.jsonl
  std::string text_column = "text";                 // field of a calibration row that holds the text
};

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

// Errors: unsupported, for what the format cannot hold: bits, a quantized head. Nothing is stored in codes with
// `export_compatible`.
void check_stored(const AwqOptions& awq);

// Sets what of `job` the settings say: model.awq, sizes, and max_seq_len and samples where given. Errors: unsupported, for a text
// column.
void apply_to_job(const QuantizationConfig& config, QuantizeJob& job);
// The file of a calibration folder that `split` names: DIR/train.jsonl, .json, .csv or .txt. A path that is no folder stays as it
// is. Errors: not found.
std::filesystem::path resolve_split(const std::filesystem::path& calibration, const std::string& split);

// A list of {smooth_layer: ..., balance_layers: [...]}, or of [[balance_layers], smooth_layer] as older recipes have it. An
// activation_hook_target is accepted: the statistics are taken at the inputs of the balance layers in any case. Errors: invalid
// argument.
std::vector<SmoothMapping> read_mappings(const ConfigNode& list);
// "PATTERN=bits:3,group_size:64,zero_point:false" as YAML that `overrides` reads. Errors: invalid argument.
std::string override_to_yaml(std::string_view word);

}  // namespace salient::pipeline
