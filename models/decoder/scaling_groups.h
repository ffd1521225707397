// Where AWQ may move scale between layers without changing the function: a "smooth" operation whose output channels are divided by s, and the
// linears that read them, whose input channels are multiplied by s.
#pragma once

#include <ATen/core/Tensor.h>

#include <variant>
#include <vector>

#include "models/decoder/architecture.h"
#include "models/decoder/block.h"

namespace salient::models {

struct ScalingGroup {
  std::variant<NormSlot, LinearSlot> smooth;  // a norm's weight, or a linear's rows (and bias)
  std::vector<LinearSlot> balance;
  InputSlot input;  // what the balance linears read
  // int64 [in_features of the balance linears]: which output channel of `smooth` feeds each input channel. Undefined = one to one. Under
  // grouped-query attention the query heads of one key-value head read the same v_proj channels and must share their scales.
  at::Tensor tie;
};

// The groups that a block's tensors allow.
std::vector<ScalingGroup> scaling_groups(const DecoderConfig& config, const BlockWeights& weights);

// Moves `scales` (float32 [in_features of the balance linears]) from the smooth operation into the balance linears, in place. A norm's new
// weight is rounded to fp16, as it will be stored, and the balance linears take up what that rounding changed: returns the scales that
// were really applied. Float linears only.
at::Tensor apply_scales(BlockWeights& weights, const ScalingGroup& group, const at::Tensor& scales);

}  // namespace salient::models
