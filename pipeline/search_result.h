// What AWQ's searches found, apart from any format: the scales of each group, the clip ranges of each linear. Searched once,
// applied as often as wanted. As a file: pipeline/search_file.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/decoder/decoder_config.h"
#include "models/decoder/scaling_groups.h"
#include "pipeline/awq_options.h"
#include "quant/affine.h"
#include "quant/scale_search.h"

namespace salient::pipeline {

// Of one group (models/decoder/scaling_groups.h). Identity is kept, too: a group that is not there was not searched.
struct FoundScales {
  std::vector<std::string> balance;  // modules; of experts only an expert's own down_proj
  std::string kind = "identity";     // "identity", "plain", "duo", or of another program "given"
  double ratio = 0;
  at::Tensor scales;  // float32 [in_features of the balance linears]
};

// Of one linear, either as factors of each group's own extremes or as the largest magnitude that is left.
struct FoundClip {
  at::Tensor low;     // [out_features, groups]: float32 factors, or uint8 places in `values`
  at::Tensor high;    // the same
  at::Tensor values;  // float32 [up to 256], or undefined
  at::Tensor limit;   // float32 [out_features, groups], in units of the scaled weight; the others are undefined then
};

struct SearchResult {
  std::string model_type;   // of config.json; empty = the file does not say
  std::string fingerprint;  // of the weights that were searched (weights_fingerprint); empty = the file does not say
  Json settings;            // of the search
  std::map<std::string, FoundScales> scales;  // by the group's smooth_name
  std::map<std::string, FoundClip> clips;     // by module
  std::string file;                           // where it was read from
  std::string sha256;                         // of that file
};

// SHA-256 of the checkpoint's weights: over the hashes of its safetensors files (hash_source_files).
std::string weights_fingerprint(const Json& source_hashes);

// Range factors as they are kept: places in the list of distinct values where those are few. An exact copy either way.
FoundClip pack_clip(const quant::ClipRange& range);
// As factors for `weight` (float32 [out_features, in_features], scaled as it will be rounded), float32 [out_features, groups].
quant::ClipRange unpack_clip(const FoundClip& clip, const at::Tensor& weight);

// The group's scales; nullptr when there are none. llm-awq names an activation where others name its divisor: "mlp.act" is found
// for "mlp.act.scales".
const FoundScales* find_scales(const SearchResult& search, const std::string& smooth_name);
// As the search itself would have given them; nothing when there are none.
std::optional<quant::ScaleSearchResult> found_scales(const SearchResult& search, const models::ScalingGroup& group);

// Whether calibration tokens are needed: not when the searches' results are given, rounding is to nearest, and no scales of keys
// and values are stored.
bool needs_calibration(const AwqOptions& options);

// Before any work: everything in options.search must belong to the model. Returns what the user should know of what will not be
// used. Errors: invalid argument, naming the tensor of the file: another architecture, a module that the model does not have or
// through which scale cannot be moved, other balance linears, a shape or a group size that does not fit, scales that are not
// positive or that differ where channels must share them.
std::vector<std::string> check_search(const models::DecoderConfig& config, const AwqOptions& options);

}  // namespace salient::pipeline
