// AWQ on one decoder block: from float weights and input statistics to packed tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <vector>

#include "models/decoder/block.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/safetensors.h"
#include "quant/clip_search.h"
#include "quant/input_statistics.h"
#include "quant/scale_search.h"
#include "quant/spec.h"

namespace salient::pipeline {

struct AwqOptions {
  quant::QuantizationSpec spec;
  quant::ScaleSearchOptions scale_search;
  bool clip = true;
  quant::ClipSearchOptions clip_search;
  bool propagate_error = true;  // the next block sees what the quantized blocks before it really put out
};

// Errors are tr(D G D^T) / tokens: the mean squared change of the linear's output, summed over its channels.
struct LinearReport {
  std::string name;
  double rtn_error = 0;   // round to nearest, no scaling, no clipping
  double error = 0;       // as stored
  std::string scale_kind;  // "identity", "plain", "duo"
  double scale_ratio = 0;
  double clipped_share = 0;
};

struct QuantizedBlock {
  std::vector<models::NamedTensor> tensors;  // as stored: packed linears, biases and norms in fp16
  models::BlockWeights weights;              // what they dequantize to, float32: to propagate with
  std::vector<LinearReport> reports;         // in the order of LinearSlot
};

using BlockStatistics = std::array<quant::InputStatistics, models::kInputSlots>;

// `weights`: float32 linears and norms, on the CPU; consumed. `statistics`: of each input slot, on the CPU.
QuantizedBlock quantize_block(const models::DecoderConfig& config, int64_t block, models::BlockWeights weights,
                              const BlockStatistics& statistics, const AwqOptions& options);

// The tensors that quantize_block will give, before there are any: to plan shards with.
std::vector<models::PlannedTensor> plan_norms(const models::DecoderConfig& config, int64_t block);
std::vector<models::PlannedTensor> plan_block(const models::DecoderConfig& config, int64_t block, const AwqOptions& options);

}  // namespace salient::pipeline
