// What a running model's linears read, channel by channel: small sums that can be added over runs, machines and days.
//
// They tell which channels matter and which never occur. They do not replace calibration tokens: the search needs the Gram matrix
// of every input, tens of gigabytes for a model of 7 billion weights, and the inputs of every block change with the quantization of
// those before it.
//
// File (safetensors), for each input of linears that was seen, named <block>.<input> such as "model.layers.0.attention_input":
//   <input>.abs_sum       F64 [features]   sum over tokens of |x|
//   <input>.square_sum    F64 [features]   sum over tokens of x^2
//   <input>.max_abs       F32 [features]   largest |x|
//   <input>.mean_abs      F32 [features]   abs_sum / tokens
//   <input>.rms           F32 [features]   sqrt(square_sum / tokens)
//   <input>.tokens        I64 [1]
//   <input>.never_active  I64 [1]          channels that were 0 at every token
// Metadata: "salient_format" "channel_statistics", "salient_version" "1", "model" (name), "config_sha256" (of config.json),
// "linears" (JSON, module name -> input; an input without tensors was never reached: an expert that no token was sent to). Experts
// of a mixture share the input of their first linears and have one <block>.experts.<i>.mlp_hidden each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "models/decoder/block_layout.h"

namespace salient::pipeline {

struct ChannelStatistics {
  at::Tensor abs_sum;     // float64 [features], on the device of what was added
  at::Tensor square_sum;  // float64 [features]
  at::Tensor max_abs;     // float32 [features]
  int64_t tokens = 0;
};

// x: float of any kind [tokens, features]; taken in float32, summed in float64.
void add_tokens(ChannelStatistics& into, const at::Tensor& x);
// Adds the sums of `from`, moved to the device of `into`. Errors: corruption when the widths differ.
void add(ChannelStatistics& into, const ChannelStatistics& from);
int64_t never_active(const ChannelStatistics& statistics);

struct ModelStatistics {
  std::string model;
  std::string config_sha256;
  std::map<std::string, std::string> linears;       // module -> input
  std::map<std::string, ChannelStatistics> inputs;  // those that were seen
};

// "model.layers.0.attention_input", "model.layers.0.experts.3.mlp_hidden", "model.layers.0.shared_expert.mlp_hidden".
std::string input_name(const models::DecoderConfig& config, int64_t block, models::InputId input);
// Every linear of every block, experts included, with the name of its input.
std::map<std::string, std::string> linear_inputs(const models::DecoderConfig& config);

// Atomic. Errors: check failed for NaN or infinite sums, naming the input (nothing is written); io.
void write_model_statistics(const std::filesystem::path& path, const ModelStatistics& statistics);
// Errors: those of SafetensorsFile; corruption for another kind of file, missing tensors, wrong dtypes or shapes; unsupported for a
// newer version.
ModelStatistics read_model_statistics(const std::filesystem::path& path);

}  // namespace salient::pipeline
