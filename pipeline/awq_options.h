// What AWQ does to a model's linears, and what it reports of each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quant/clip_search.h"
#include "quant/scale_search.h"
#include "quant/spec.h"

namespace salient::pipeline {

enum class WeightFormat : uint8_t {
  kAwqGemm,  // AutoAWQ's GEMM layout, float16
  kFloat,    // smoothed only: the same function in the source's layout and dtype, for quantizers that follow
};

// One line of llm-compressor's "mappings": a module name, or a regular expression after "re:".
struct SmoothMapping {
  std::string smooth_layer;
  std::vector<std::string> balance_layers;
};

struct AwqOptions {
  quant::QuantizationSpec spec;
  quant::ScaleSearchOptions scale_search;
  bool clip = true;
  quant::ClipSearchOptions clip_search;
  bool propagate_error = true;  // the next block sees what the quantized blocks before it really put out
  WeightFormat format = WeightFormat::kAwqGemm;
  // Modules that stay in float: names, or regular expressions after "re:". lm_head always does.
  std::vector<std::string> ignore = {"lm_head"};
  // Only these groups are searched; empty = every group that the model's tensors allow.
  std::vector<SmoothMapping> mappings = {};
};

// Errors are tr(D G D^T) / tokens: the mean squared change of the linear's output, summed over its channels.
struct LinearReport {
  std::string name;
  double rtn_error = 0;   // round to nearest, no scaling, no clipping
  double error = 0;       // as stored
  std::string scale_kind = "identity";  // "identity", "plain", "duo"
  double scale_ratio = 0;
  double clipped_share = 0;
  int64_t routed_tokens = -1;  // of an expert: calibration tokens that its router sent to it. 0 = rounded to nearest, nothing searched
};

}  // namespace salient::pipeline
