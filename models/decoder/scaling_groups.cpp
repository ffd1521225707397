#include "models/decoder/scaling_groups.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "common/error.h"
#include "models/decoder/mlp.h"
#include "quant/fixed_parts.h"

namespace salient::models {
namespace {

FloatLinear& float_linear(Linear& linear) {
  auto* plain = std::get_if<FloatLinear>(&linear);
  if (plain == nullptr) fail(ErrorKind::kInternal, "apply_scales: a linear is packed already");
  return *plain;
}

const LinearSpec* find_linear(const std::vector<LinearSpec>& linears, LinearId id) {
  const auto it = std::find_if(linears.begin(), linears.end(), [&](const LinearSpec& spec) { return spec.id == id; });
  return it == linears.end() ? nullptr : &*it;
}

// The norms whose output linears read, and which input that is.
struct NormInput {
  NormSlot norm;
  InputSlot input;
};
constexpr NormInput kNormInputs[] = {{NormSlot::kAttentionInput, InputSlot::kAttentionInput},
                                     {NormSlot::kQueryLatent, InputSlot::kQueryLatent},
                                     {NormSlot::kKvLatent, InputSlot::kKvLatent},
                                     {NormSlot::kMlpInput, InputSlot::kMlpInput}};

void set_channels(ScalingGroup& group, const std::vector<int64_t>& channels) {
  group.channels = at::tensor(channels, at::kLong);
  auto [unique, inverse] = at::_unique(group.channels, /*sorted=*/true, /*return_inverse=*/true);
  if (unique.numel() < group.channels.numel()) group.tie = inverse;
}

std::optional<ScalingGroup> norm_group(const DecoderConfig& config, const BlockLayout& layout, const NormInput& row) {
  const auto norm =
      std::find_if(layout.norms.begin(), layout.norms.end(), [&](const NormSpec& spec) { return spec.slot == row.norm; });
  if (norm == layout.norms.end() || !norm->affine) return std::nullopt;
  if (config.residual_from_norm) return std::nullopt;  // the residual reads it, too
  ScalingGroup group;
  group.smooth = row.norm;
  group.smooth_name = norm->names.front();
  group.input = {row.input, kDenseMlp};
  for (const LinearSpec& spec : layout.linears) {
    if (spec.input == group.input) group.balance.push_back(spec.id);
  }
  if (layout.experts > 0) {
    for (const LinearSpec& spec : expert_layout(config, layout.block, 0)) group.experts |= spec.input == group.input;
  }
  if (group.balance.empty() && !group.experts) return std::nullopt;
  return group;
}

// Linear attention normalizes each head's output with one weight for all heads.
std::optional<ScalingGroup> linear_attention_group(const DecoderConfig& config, const BlockLayout& layout) {
  const auto norm = std::find_if(layout.norms.begin(), layout.norms.end(),
                                 [](const NormSpec& spec) { return spec.slot == NormSlot::kLinearAttention; });
  if (norm == layout.norms.end()) return std::nullopt;
  ScalingGroup group;
  group.smooth = NormSlot::kLinearAttention;
  group.smooth_name = norm->names.front();
  group.input = {InputSlot::kAttentionOutput, kDenseMlp};
  group.balance = {{LinearSlot::kOProj, kDenseMlp}};
  std::vector<int64_t> channels;
  for (int64_t head = 0; head < config.linear_attention.num_value_heads; ++head) {
    for (int64_t d = 0; d < norm->features; ++d) channels.push_back(d);
  }
  set_channels(group, channels);
  return group;
}

std::optional<ScalingGroup> value_group(const DecoderConfig& config, const BlockLayout& layout) {
  const bool linear_attention = config.layers[static_cast<size_t>(layout.block)].attention == AttentionKind::kLinear;
  if (linear_attention || config.qkv_clip > 0.0) return std::nullopt;  // values pass a nonlinearity
  for (const LinearSlot slot : {LinearSlot::kVProj, LinearSlot::kQkvProj, LinearSlot::kKvBProj}) {
    const LinearSpec* values = find_linear(layout.linears, {slot, kDenseMlp});
    if (values == nullptr) continue;
    ScalingGroup group;
    group.smooth = values->id;
    group.smooth_name = values->name;
    group.input = {InputSlot::kAttentionOutput, kDenseMlp};
    group.balance = {{LinearSlot::kOProj, kDenseMlp}};
    set_channels(group, value_rows(config, slot));
    return group;
  }
  return std::nullopt;
}

// Inside one MLP.
std::optional<ScalingGroup> hidden_group(const DecoderConfig& config, const std::vector<LinearSpec>& linears, int64_t mlp) {
  const LinearSpec* down = find_linear(linears, {LinearSlot::kDownProj, mlp});
  if (down == nullptr) return std::nullopt;
  ScalingGroup group;
  group.input = down->input;
  group.balance = {down->id};
  const LinearSpec* up = find_linear(linears, {LinearSlot::kUpProj, mlp});
  const LinearSpec* fused = find_linear(linears, {LinearSlot::kGateUpProj, mlp});
  const bool gated = fused != nullptr || find_linear(linears, {LinearSlot::kGateProj, mlp}) != nullptr;
  if (!gated) {
    group.power = activation_homogeneity(config.hidden_act);
    if (group.power == 0) return std::nullopt;
  } else if (config.moe.swiglu_limit > 0.0) {
    return std::nullopt;  // the up branch is clamped
  }
  const LinearSpec* smooth = fused != nullptr ? fused : up;
  group.smooth = smooth->id;
  group.smooth_name = smooth->name;
  if (fused != nullptr) group.channels = at::arange(down->in_features, 2 * down->in_features, at::kLong);
  return group;
}

std::optional<ScalingGroup> activation_group(const DecoderConfig& config, const BlockLayout& layout) {
  const auto divisor = std::find_if(layout.parameters.begin(), layout.parameters.end(),
                                    [](const ParameterSpec& spec) { return spec.slot == ParameterSlot::kActivationScales; });
  const LinearSpec* down = find_linear(layout.linears, {LinearSlot::kDownProj, kDenseMlp});
  if (divisor == layout.parameters.end() || down == nullptr || activation_homogeneity(config.hidden_act) != 0) return std::nullopt;
  ScalingGroup group;
  group.smooth = ParameterSlot::kActivationScales;
  group.smooth_name = divisor->name;
  group.input = down->input;
  group.balance = {down->id};
  return group;
}

at::Tensor to_stored(const at::Tensor& x, at::ScalarType stored) {
  const double largest = stored == at::kHalf ? 65504.0 : std::numeric_limits<float>::max();
  return x.clamp(-largest, largest).to(stored).to(at::kFloat);
}

// One value for each smooth channel out of those of the input channels that it feeds, which are all equal.
at::Tensor by_smooth_channel(const ScalingGroup& group, const at::Tensor& scales, int64_t count) {
  if (!group.channels.defined()) return scales;
  at::Tensor result = at::ones({count}, scales.options());
  result.index_put_({group.channels}, scales);
  return result;
}

at::Tensor by_input_channel(const ScalingGroup& group, const at::Tensor& scales) {
  return group.channels.defined() ? scales.index_select(0, group.channels) : scales;
}

// Divides the norm's weight and rounds it; returns what the balance linears must be multiplied by to undo exactly that, by norm
// channel.
at::Tensor divide_norm(Norm& norm, const at::Tensor& scales, at::ScalarType stored) {
  const double one = stored_weight_offset(norm.kind);
  const at::Tensor old = norm.weight.to(at::kFloat) + one;
  at::Tensor kept = to_stored(old / scales - one, stored);
  kept = at::where(kept + one != 0, kept,
                   to_stored(old - one, stored));  // a channel must not vanish by underflow: it is left unscaled
  // A channel whose weight is 0 carries nothing: any factor is right, the searched one is kept.
  const at::Tensor applied = at::where((kept + one != 0).logical_and(old != 0), old / (kept + one), scales);
  norm.weight = kept;
  if (norm.bias.defined()) norm.bias = norm.bias.to(at::kFloat) / applied;
  return applied.contiguous();
}

void divide_rows(Linear& linear, const ScalingGroup& group, const at::Tensor& scales) {
  FloatLinear& smooth = float_linear(linear);
  const at::Tensor by_row = divided_rows(group, scales, smooth.weight.size(0));
  smooth.weight = smooth.weight / by_row.unsqueeze(1);
  if (smooth.bias.defined()) smooth.bias = smooth.bias / by_row;
}

}  // namespace

std::vector<ScalingGroup> scaling_groups(const DecoderConfig& config, const BlockLayout& layout) {
  std::vector<ScalingGroup> groups;
  const auto add = [&](std::optional<ScalingGroup> group) {
    if (group) groups.push_back(std::move(*group));
  };
  for (const NormInput& row : kNormInputs) add(norm_group(config, layout, row));
  add(linear_attention_group(config, layout));
  add(value_group(config, layout));
  add(hidden_group(config, layout.linears, kDenseMlp));
  add(activation_group(config, layout));
  add(hidden_group(config, layout.linears, kSharedExpert));
  return groups;
}

std::vector<ScalingGroup> expert_scaling_groups(const DecoderConfig& config, int64_t block, int64_t expert) {
  if (auto group = hidden_group(config, expert_layout(config, block, expert), expert)) return {std::move(*group)};
  return {};
}

at::Tensor apply_scales(BlockWeights& weights, const ScalingGroup& group, const at::Tensor& scales, at::ScalarType stored) {
  at::Tensor applied = scales;
  if (const auto* norm = std::get_if<NormSlot>(&group.smooth)) {
    const at::Tensor divided =
        divide_norm(weights.at(*norm), by_smooth_channel(group, scales, weights.at(*norm).weight.size(0)), stored);
    applied = by_input_channel(group, divided);
  } else if (std::holds_alternative<ParameterSlot>(group.smooth)) {
    applied = to_stored(scales, stored);
    weights.mlp.activation_scales = weights.mlp.activation_scales.defined() ? weights.mlp.activation_scales * applied : applied;
  } else {
    divide_rows(weights.at(std::get<LinearId>(group.smooth)), group, scales);
  }
  for (const LinearId id : group.balance) scale_columns(weights.at(id), applied);
  return applied;
}

void apply_scales(MlpWeights& expert, const ScalingGroup& group, const at::Tensor& scales) {
  divide_rows(expert.at(std::get<LinearId>(group.smooth).slot), group, scales);
  for (const LinearId id : group.balance) scale_columns(expert.at(id.slot), scales);
}

void scale_columns(Linear& linear, const at::Tensor& scales) {
  FloatLinear& plain = float_linear(linear);
  plain.weight = (plain.weight * scales.unsqueeze(0)).contiguous();
}

at::Tensor divided_rows(const ScalingGroup& group, const at::Tensor& scales, int64_t out_features) {
  const at::Tensor by_row = by_smooth_channel(group, scales, out_features);
  return group.power == 1 ? by_row : quant::elementwise(by_row, [&](const at::Tensor& x) { return x.pow(1.0 / group.power); });
}

}  // namespace salient::models
