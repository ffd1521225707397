#include "models/decoder/scaling_groups.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include "common/error.h"

namespace salient::models {
namespace {

constexpr double kLargestHalf = 65504.0;

FloatLinear& float_linear(BlockWeights& weights, LinearSlot slot) {
  auto* linear = std::get_if<FloatLinear>(&weights.at(slot));
  if (linear == nullptr) fail(ErrorKind::kInternal, "apply_scales: a linear is packed already");
  return *linear;
}

// v_proj channel (kv_head, d) feeds o_proj channel (head, d) of every query head that shares the key-value head.
at::Tensor value_tie(const DecoderConfig& config) {
  const int64_t repeat = config.num_attention_heads / config.num_key_value_heads;
  if (repeat == 1) return {};
  const at::Tensor channels = at::arange(config.num_key_value_heads * config.head_dim, at::kLong);
  return channels.view({config.num_key_value_heads, 1, config.head_dim})
      .expand({config.num_key_value_heads, repeat, config.head_dim})
      .reshape({-1});
}

// One value for each smooth channel out of the values of the tied input channels, which are all equal.
at::Tensor untie(const at::Tensor& scales, const at::Tensor& tie) {
  if (!tie.defined()) return scales;
  at::Tensor result = at::empty({tie.max().item<int64_t>() + 1}, scales.options());
  result.index_put_({tie}, scales);
  return result;
}

// Divides the norm's weight and rounds it to fp16; returns what the balance linears must be multiplied by to undo exactly that.
at::Tensor divide_norm(at::Tensor& norm, const at::Tensor& scales) {
  const at::Tensor old = norm.to(at::kFloat);
  const auto to_stored = [](const at::Tensor& x) { return x.clamp(-kLargestHalf, kLargestHalf).to(at::kHalf).to(at::kFloat); };
  at::Tensor stored = to_stored(old / scales);
  stored = at::where(stored != 0, stored, to_stored(old));  // a channel must not vanish by underflow: it is left unscaled
  // A channel whose norm weight is 0 carries nothing: any factor is right, the searched one is kept.
  const at::Tensor applied = at::where(stored != 0, old / stored, scales);
  norm = stored;
  return applied.contiguous();
}

}  // namespace

std::vector<ScalingGroup> scaling_groups(const DecoderConfig& config, const BlockWeights& weights) {
  std::vector<ScalingGroup> groups;
  if (weights.at(NormSlot::kInput).defined()) {
    groups.push_back({NormSlot::kInput, {LinearSlot::kQProj, LinearSlot::kKProj, LinearSlot::kVProj}, InputSlot::kAttentionInput, {}});
  }
  groups.push_back({LinearSlot::kVProj, {LinearSlot::kOProj}, InputSlot::kAttentionOutput, value_tie(config)});
  if (weights.at(NormSlot::kPostAttention).defined()) {
    groups.push_back({NormSlot::kPostAttention, {LinearSlot::kGateProj, LinearSlot::kUpProj}, InputSlot::kMlpInput, {}});
  }
  // Only the up branch may be scaled: the gate passes through a nonlinearity.
  groups.push_back({LinearSlot::kUpProj, {LinearSlot::kDownProj}, InputSlot::kMlpHidden, {}});
  return groups;
}

at::Tensor apply_scales(BlockWeights& weights, const ScalingGroup& group, const at::Tensor& scales) {
  at::Tensor applied = scales;
  if (const auto* norm = std::get_if<NormSlot>(&group.smooth)) {
    applied = divide_norm(weights.at(*norm), scales);
  } else {
    FloatLinear& smooth = float_linear(weights, std::get<LinearSlot>(group.smooth));
    const at::Tensor by_row = untie(scales, group.tie);
    smooth.weight = smooth.weight / by_row.unsqueeze(1);
    if (smooth.bias.defined()) smooth.bias = smooth.bias / by_row;
  }
  for (const LinearSlot slot : group.balance) {
    FloatLinear& linear = float_linear(weights, slot);
    linear.weight = (linear.weight * applied.unsqueeze(0)).contiguous();
  }
  return applied;
}

}  // namespace salient::models
