// AWQ's scale search (Lin et al., "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978) on the Gram matrix.
//
// Input channels are multiplied by s before quantization and divided after, so that channels with large activations lose less. Candidates are
// s = mean|x|^r and s = mean|x|^r / mean|w|^(1-r) ("duo") over a grid of r in [0, 1], both ends included, and identity, so that
// the result is never worse than rounding to nearest by its own measure.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/affine.h"
#include "quant/input_statistics.h"

namespace salient::quant {

enum class DuoScaling { kOff, kOn, kBoth };
std::string_view to_string(DuoScaling duo);
// "off", "on" or "both". Errors: invalid argument.
DuoScaling parse_duo_scaling(std::string_view name);

struct ScaleSearchOptions {
  int grid = 20;  // steps of r
  DuoScaling duo = DuoScaling::kBoth;
};

struct ScaleSearchResult {
  at::Tensor scales;  // float32 [in_features]
  double rtn_error = 0;   // tr(D G D^T) / rows summed over the linears, with identity
  double best_error = 0;  // with `scales`
  std::string kind;       // "identity", "plain" or "duo"
  double ratio = 0;       // r of the best candidate
};

// weights: the linears that share the input, float32 [out_i, in_features].
// `tie`: empty, or int64 [in_features] with the index of the scale that each input channel must share with others (0 .. tied-1): how
// v_proj -> o_proj works under grouped-query attention.
ScaleSearchResult search_scales(const std::vector<at::Tensor>& weights, const InputStatistics& statistics, const AffineOptions& options,
                                const ScaleSearchOptions& search, const at::Tensor& tie = {});

// Mean over all rows of |w| relative to the largest |w| of its group: float32 [in_features] in (0, 1].
at::Tensor relative_weight_magnitude(const std::vector<at::Tensor>& weights, int64_t group_size);

}  // namespace salient::quant
