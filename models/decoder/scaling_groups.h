// Where AWQ may move scale between operations without changing the function: a "smooth" operation whose output channels are divided
// by s, and the linears that read them, whose input channels are multiplied by s. The groups of a block follow from its tensors and
// from what lies between them: only linear or positively homogeneous operations may.
//
//   norm -> every linear that reads its output, routers and gates included
//   v_proj -> o_proj (also the value rows of a fused qkv_proj and of kv_b_proj); query heads that share values share scales
//   up_proj -> down_proj when the gate alone passes a nonlinearity, or when the activation is ReLU or its square
//   activation -> down_proj otherwise, where the architecture's packed checkpoints have a divisor for it (AutoAWQ's ScaledActivation)
//   linear attention's gated norm -> its output projection
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <variant>
#include <vector>

#include "models/decoder/block_layout.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

struct ScalingGroup {
  // A norm's weight and bias, a linear's rows and bias, or the divisor of an activation.
  std::variant<NormSlot, LinearId, ParameterSlot> smooth;
  std::string smooth_name;        // module, or tensor of the divisor
  std::vector<LinearId> balance;  // without those of experts
  bool experts = false;           // the gate_proj and up_proj of every expert belong to `balance`, too
  InputId input;                  // what the balance linears read
  // int64 [in_features of the balance linears]: the channel of `smooth` that feeds each input channel. Undefined = one to one.
  at::Tensor channels;
  // int64, the same shape: which input channels must share their scale, 0 to n - 1. Undefined = none.
  at::Tensor tie;
  int power = 1;  // the smooth channels are divided by s^(1/power)
};

// The groups of a block's linears outside of its experts.
std::vector<ScalingGroup> scaling_groups(const DecoderConfig& config, const BlockLayout& layout);
// The group inside of one expert (up_proj -> down_proj), or none.
std::vector<ScalingGroup> expert_scaling_groups(const DecoderConfig& config, int64_t block, int64_t expert);

// Moves `scales` (float32 [in_features of the balance linears]) from the smooth operation into the balance linears that are in
// memory, in place. A norm's new weight and an activation's divisor are rounded to `stored`, as they will be on disk, and the
// balance linears take up what that rounding changed: returns the scales that were really applied. Float linears only.
at::Tensor apply_scales(BlockWeights& weights, const ScalingGroup& group, const at::Tensor& scales, at::ScalarType stored);
// The same for the group of one expert.
void apply_scales(MlpWeights& expert, const ScalingGroup& group, const at::Tensor& scales);
// Multiplies the input channels of one linear.
void scale_columns(Linear& linear, const at::Tensor& scales);
// What the rows of group.smooth, a linear with `out_features` rows, were divided by: float32 [out_features].
at::Tensor divided_rows(const ScalingGroup& group, const at::Tensor& scales, int64_t out_features);

}  // namespace salient::models
