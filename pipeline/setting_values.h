// How the values of single settings are read and printed: what the rows of the table in quantization_settings.cpp name. Errors of
// all readers: invalid argument with the place of the value, what was found and what was expected.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/yaml.h"
#include "pipeline/quantization_config.h"

namespace salient::pipeline {

inline constexpr int64_t kMostCount = int64_t{1} << 40;

// Not empty.
std::string read_text(const ConfigNode& node);
std::vector<std::string> read_texts(const ConfigNode& list);
// "5GB", "2GiB": bytes, `least` or more.
uint64_t read_size(const ConfigNode& node, uint64_t least);
// Of a weight: 2, 3, 4, 5, 6 or 8.
int read_bits(const ConfigNode& node);
// Of what the runtime quantizes.
int read_runtime_bits(const ConfigNode& node, std::initializer_list<int> allowed);
// -1, or 8 or more.
int64_t read_group_size(const ConfigNode& node);

void read_method(const ConfigNode& node, QuantizationConfig& config);
void read_duo(const ConfigNode& node, QuantizationConfig& config);
void read_objective(const ConfigNode& node, QuantizationConfig& config);
void read_rounding(const ConfigNode& node, QuantizationConfig& config);
void read_off_diagonal(const ConfigNode& node, QuantizationConfig& config);
void read_format(const ConfigNode& node, QuantizationConfig& config);
// A file of pipeline/search_file.h, which is read.
void read_search_setting(const ConfigNode& node, QuantizationConfig& config);
Json print_search(const QuantizationConfig& config);
// AutoAWQ's kernels, each with a layout of its own: gemm, gemv, gemv_fast, marlin. Errors: invalid argument for another name.
void read_version(const ConfigNode& node, QuantizationConfig& config);
void read_smooth_only(const ConfigNode& node, QuantizationConfig& config);
// AutoAWQ's modules_to_not_convert. They may match nothing: users give the same list to a family of models.
void read_not_converted(const ConfigNode& node, QuantizationConfig& config);
void read_overrides(const ConfigNode& list, QuantizationConfig& config);
Json print_overrides(const QuantizationConfig& config);
// A number, "auto", or "auto:" and the most that may be chosen.
void read_salient_ratio(const ConfigNode& node, QuantizationConfig& config);
Json print_salient_ratio(const QuantizationConfig& config);
// [4, 8], or the word 4,8.
void read_bit_choices(const ConfigNode& node, QuantizationConfig& config);
void read_target_bits(const ConfigNode& node, QuantizationConfig& config);
// "auto", 0 or a positive number.
void read_pad_intermediate(const ConfigNode& node, QuantizationConfig& config);
Json print_pad_intermediate(const QuantizationConfig& config);
void read_chunk_memory(const ConfigNode& node, QuantizationConfig& config);

// A list of {smooth_layer: ..., balance_layers: [...]}, or of [[balance_layers], smooth_layer] as older recipes have it. An
// activation_hook_target is accepted: the statistics are taken at the inputs of the balance layers in any case.
std::vector<SmoothMapping> read_mappings(const ConfigNode& list);
Json print_mappings(const QuantizationConfig& config);

// "PATTERN=bits:3,group_size:64,zero_point:false" as YAML that read_overrides reads.
std::string override_to_yaml(std::string_view word);

}  // namespace salient::pipeline
