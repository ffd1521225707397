// What is done to a model's linears, and what is reported of each.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quant/clip_search.h"
#include "quant/ggml_types.h"
#include "quant/rounding.h"
#include "quant/scale_search.h"
#include "quant/spec.h"

namespace salient::pipeline {

enum class WeightFormat : uint8_t {
  kAwqGemm,            // AutoAWQ's layouts, float16, 4 bits: GEMM,
  kAwqGemv,            // GEMV,
  kAwqGemvFast,        // GEMV_FAST,
  kAwqMarlin,          // and Marlin, which has no zero points
  kCompressedTensors,  // compressed-tensors "pack-quantized": 2 to 8 bits, mixed within a model
  kDequantized,        // rounded weights written as float32 in the source's layout: any engine runs them, nothing gets smaller
  kFloat,              // smoothed only: the same function in the source's layout and dtype, for quantizers that follow
  // One GGUF file, smoothed only: linears in float16 or bfloat16, for llama.cpp's own quantizer
  kGgufF16,
  kGgufBF16,
  // One GGUF file with llama.cpp's mixture of this name (models/gguf/gguf_mixture.h): each linear has a type of its own
  kGgufQ8_0,
  kGgufQ4_0,
  kGgufQ4_K_S,
  kGgufQ4_K_M,
  kGgufQ5_K_M,
  kGgufQ6_K,
};

// One line of llm-compressor's "mappings": a module name, or a regular expression after "re:".
struct SmoothMapping {
  std::string smooth_layer;
  std::vector<std::string> balance_layers;
};

// Other settings for the modules that a pattern names (as AwqOptions::ignore); the last override that matches a module and has a
// value wins.
struct ModuleOverride {
  std::string pattern;
  std::optional<int> bits;  // 16 = stays in float
  std::optional<int64_t> group_size;
  std::optional<bool> zero_point;
  bool may_miss = false;  // may match no module, as AwqOptions::ignore_may_miss
};

// The measure of the scale search: the error of each linear's own output from the Gram matrix of its input, or that of the smallest
// module that holds all linears of a group (attention, MLP), run with every candidate, as AutoAWQ and llm-compressor do.
enum class Objective : uint8_t { kGram, kBlock };

inline constexpr int64_t kPadAuto = -1;

struct SearchResult;

struct AwqOptions {
  quant::QuantizationSpec spec;
  std::string method = "awq";  // "rtn", "gptq", "adaround" or "awq": the settings that a method means are in pipeline/methods.h
  bool scale = true;           // move scale between operations; false: identity everywhere
  quant::ScaleSearchOptions scale_search;
  Objective objective = Objective::kGram;
  bool clip = true;
  quant::ClipSearchOptions clip_search;
  quant::RoundingOptions rounding;
  bool rows_curve =
      false;  // measure how the held-back error falls with the number of calibration rows; changes nothing that is stored
  bool propagate_error = true;  // the next block sees what the quantized blocks before it really put out
  WeightFormat format = WeightFormat::kAwqGemm;
  // Modules that stay in float: names, or regular expressions after "re:". lm_head always does unless spec.lm_head says int8.
  std::vector<std::string> ignore = {"lm_head"};
  // Of `ignore`, those that may match no module of the model: of recipes and of AutoAWQ's modules_to_not_convert, which are written
  // for families of models and only warn there. Any other pattern that matches nothing is an error.
  std::vector<std::string> ignore_may_miss = {};
  // Only these groups are searched; empty = every group that the model's tensors allow.
  std::vector<SmoothMapping> mappings = {};
  std::vector<ModuleOverride> overrides = {};
  double target_bits = 0;  // mean bits of a weight, scales and zero points not counted, reached by choosing bits for each module; 0
                           // = spec.weight_bits everywhere
  std::vector<int> bit_choices = {2, 3, 4, 5, 6, 8};  // to choose from with target_bits, as far as the format has them
  std::map<std::string, int> planned_bits = {};  // by module: what target_bits came to (pipeline/bit_plan.h); set by quantize_model
  // By module: the type of each linear in a GGUF file, which says its bits and groups; set by quantize_model from the format and
  // the model.
  std::map<std::string, quant::GgmlType> ggml_types = {};
  double salient_ratio = 0;   // share of input channels of each linear that are kept in float; 0 = none
  bool salient_auto = false;  // each linear's share is chosen from its measured salience, salient_ratio is its upper bound
  at::ScalarType scale_dtype = at::kHalf;  // that scales are stored in; set by quantize_model from the format and the model
  // Scales and clip ranges that were searched before, instead of searching (pipeline/search_result.h); null = search. `scale` and
  // `clip` say which are used.
  std::shared_ptr<const SearchResult> search = nullptr;
  // Widths of gated MLPs are raised to a multiple of it by zeros (pipeline/pad_intermediate.h); 0 = they stay, kPadAuto = to what
  // the format and its engines take.
  int64_t pad_intermediate = 0;
  bool search_only = false;  // nothing but the search's result is stored; searched as for compressed-tensors
  // compressed-tensors: the specification's bits of activations and KV cache stand in config.json too, where 8, so that engines
  // round while they run (pipeline/runtime_scheme.h). false: in the metadata alone.
  bool write_runtime_bits = false;
  bool export_compatible =
      false;  // scales and clipping are applied, weights stay floats in the source's layout: for quantizers that follow (AutoAWQ)
};

// Errors are tr(D G D^T) / tokens: the mean squared change of the linear's output, summed over its channels. Negative = not
// measured.
struct LinearReport {
  std::string name;
  int bits = 0;
  int64_t group_size = 0;
  int64_t in_features = 0;
  double rtn_error = 0;                 // round to nearest, no scaling, no clipping
  double scaled_error = -1;             // with the scales, rounded to nearest
  double clipped_error = -1;            // and clipped
  double error = 0;                     // as stored
  std::string scale_kind = "identity";  // "identity", "plain", "duo"
  double scale_ratio = 0;
  double clipped_share = 0;
  // On calibration rows that the rounding did not see, where some were held back.
  double held_back_nearest = -1;  // rounded to nearest with the same scales and clipping
  double held_back_error = -1;    // as stored
  // With AwqOptions::rows_curve: calibration blocks that the rounding saw, and the held-back error of what it made of them; the
  // last point is all but those held back, and has `held_back_error`.
  std::vector<std::pair<int64_t, double>> rows_curve;
  double off_diagonal = -1;      // factor of the Gram matrix's off-diagonal part in the rounding
  int64_t dead_channels = 0;     // input channels that the weight reads and that were 0 for every calibration token
  int64_t salient_channels = 0;  // input channels kept in float
  double salience_correlation =
      -2;  // Spearman, over input channels, of mean |x| and the channel's own share of the rounding error; -2 = not measured
  std::vector<double> salience_quantiles;           // of mean |x|: 0, 25, 50, 75, 90, 99, 100 %
  double salience_top_share = -1;                   // of sum(mean |x|), in the top 1 % of the channels
  std::vector<std::pair<int, double>> sensitivity;  // bits -> error, where measured
  std::vector<std::string> warnings;
  int64_t routed_tokens =
      -1;  // of an expert: calibration tokens that its router sent to it. 0 = rounded to nearest, nothing searched
};

}  // namespace salient::pipeline
