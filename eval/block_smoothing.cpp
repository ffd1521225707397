#include "eval/block_smoothing.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace salient::eval {
namespace {

using models::BlockWeights;
using models::FloatLinear;
using models::Linear;
using models::LinearSpec;
using models::MlpWeights;
using models::ScalingGroup;

constexpr int64_t kPartElements = int64_t{1} << 22;
// Rounding to 2 bits leaves about 0.5; an unrelated matrix of the same size 1.4.
constexpr double kMostResidual = 0.9;
// A group was left as it is unless scaling explains more than this share of what is left without: estimates follow the rounding a
// little.
constexpr double kLeastGain = 1.1;
// Given scales leave about what the best do; those of another search ten times as much and more.
constexpr double kMostOfGiven = 3.0;

template <typename Use>
void for_each_linear(BlockWeights& weights, Use use) {
  for (Linear& linear : weights.linears) use(linear);
  const auto mlp = [&](MlpWeights& parts) {
    for (Linear* linear : {&parts.gate, &parts.up, &parts.gate_up, &parts.down}) use(*linear);
  };
  mlp(weights.mlp);
  mlp(weights.shared_expert);
  for (MlpWeights& expert : weights.experts) mlp(expert);
}

void apply(BlockWeights& weights, const GroupScales& found) {
  const at::Tensor applied = models::apply_scales(weights, found.group, found.scales, at::kFloat);
  for (MlpWeights& expert : weights.experts) {
    for (const models::LinearSlot slot : found.of_experts) models::scale_columns(expert.at(slot), applied);
  }
}

// In float32 on the CPU, where scales are found and applied.
BlockWeights to_float(BlockWeights weights) {
  // Before anything is moved: codes in a device's own order cannot be.
  for_each_linear(weights, [](Linear& linear) {
    if (std::holds_alternative<FloatLinear>(linear)) return;
    fail(ErrorKind::kUnsupported, "the base is quantized itself: only whole blocks can be exchanged with it");
  });
  weights = models::to_device(std::move(weights), at::kCPU);
  for_each_linear(weights, [](Linear& linear) {
    auto& plain = std::get<FloatLinear>(linear);
    if (plain.weight.defined()) plain.weight = plain.weight.to(at::kFloat);
    if (plain.bias.defined()) plain.bias = plain.bias.to(at::kFloat);
  });
  return weights;
}

at::Tensor dense(const Linear& linear) { return models::dense_weight(linear).to(at::kCPU, at::kFloat); }

struct Fit {
  at::Tensor scales;  // float32 [in_features of the balance linears]
  double uncertainty = 0;
};

// What a group's smooth linear puts out, float32 [tokens, out_features]: in float, without this group's scales yet, and the
// model's.
struct SmoothOutputs {
  const ScalingGroup& group;
  at::Tensor plain, rounded;
  at::Tensor row_of_channel;  // int64 [in_features of the balance linears]

  SmoothOutputs(const ScalingGroup& of, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& model_weight,
                int64_t in_features)
      : group(of),
        plain(x.matmul(weight.t())),
        rounded(x.matmul(model_weight.t())),
        row_of_channel(of.channels.defined() ? of.channels : at::arange(in_features, at::kLong)) {}

  // What these scales leave of the difference, in units of the outputs' size; of the channels that are read.
  double residual(const at::Tensor& scales) const {
    const at::Tensor expected = (plain / models::divided_rows(group, scales, plain.size(1))).index_select(1, row_of_channel);
    const at::Tensor size = expected.square().sum(0, false, at::kDouble);
    const at::Tensor left = (rounded.index_select(1, row_of_channel) - expected).square().sum(0, false, at::kDouble);
    return at::where(size > 0, left / size, 0.0).mean().item<double>();
  }

  Fit estimate() const {
    const auto product = [](const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(0, false, at::kDouble); };
    const at::Tensor sizes = (product(plain, plain) * product(rounded, rounded)).sqrt();
    const at::Tensor correlation = (product(plain, rounded) / sizes);
    const at::Tensor ratio = (product(plain, plain) / product(rounded, rounded)).sqrt();
    const at::Tensor sound =
        ratio.isfinite().logical_and(ratio > 0).logical_and(correlation > 0);  // else nothing can be said of the channel
    const at::Tensor scales = at::where(sound, ratio, 1.0).pow(group.power).to(at::kFloat).index_select(0, row_of_channel);
    // The two regressions, of the one on the other and back, differ by the correlation's square.
    const at::Tensor uncertain = at::where(sound, correlation.clamp_max(1.0).log(), 0.0).index_select(0, row_of_channel);
    return {scales, uncertain.square().mean().sqrt().item<double>()};
  }
};

class Finder {
 public:
  Finder(const models::DecoderConfig& config, int64_t block, const BlockWeights& base, const BlockWeights& model,
         const BlockInputs& inputs, const KnownScales& known)
      : config_(config),
        layout_(models::block_layout(config, block)),
        inputs_(inputs),
        known_(known),
        weights_(to_float(base)),
        model_(model) {}

  BlockSmoothing run() {
    for (const LinearSpec& spec : layout_.linears) check_shape(spec, weights_.at(spec.id), model_.at(spec.id));
    for (const ScalingGroup& group : models::scaling_groups(config_, layout_)) {
      at::Tensor scales;
      if (const auto* norm = std::get_if<models::NormSlot>(&group.smooth)) {
        scales = norm_scales(group, weights_.at(*norm), model_.at(*norm));
      } else if (std::holds_alternative<models::ParameterSlot>(group.smooth)) {
        if (model_.mlp.activation_scales.defined()) scales = model_.mlp.activation_scales.to(at::kCPU, at::kFloat);
      } else {
        scales = linear_scales(group, layout_.linears, weights_.at(group.balance.front()));
      }
      if (!scales.defined()) continue;
      found_.groups.push_back({group, scales, expert_readers(group)});
      apply(weights_, found_.groups.back());
    }
    find_in_experts();
    check_rest();
    return std::move(found_);
  }

 private:
  void check_shape(const LinearSpec& spec, const Linear& mine, const Linear& other) const {
    const at::Tensor a = std::get<FloatLinear>(mine).weight;
    if (!a.defined() || !models::has_weight(other) || dense(other).sizes() != a.sizes()) {
      fail(ErrorKind::kUnsupported, "{} has another shape than the base's: only whole blocks can be exchanged with it", spec.name);
    }
  }

  static at::Tensor norm_scales(const ScalingGroup& group, const models::Norm& before, const models::Norm& after) {
    if (!before.weight.defined() || !after.weight.defined() || before.weight.sizes() != after.weight.sizes()) {
      fail(ErrorKind::kUnsupported, "{} has another shape than the base's: only whole blocks can be exchanged with it",
           group.smooth_name);
    }
    const double one = models::stored_weight_offset(before.kind);
    const at::Tensor old = before.weight.to(at::kCPU, at::kDouble) + one;
    const at::Tensor now = after.weight.to(at::kCPU, at::kDouble) + one;
    if (old.equal(now)) return {};
    const at::Tensor ratio = at::where((old != 0).logical_and(now != 0), old / now, 1.0);
    if (!ratio.isfinite().logical_and(ratio > 0).all().item<bool>()) {
      fail(ErrorKind::kCheckFailed, "{}: not the base's weight divided by scales: signs or values differ", group.smooth_name);
    }
    const at::Tensor scales = ratio.to(at::kFloat);
    return group.channels.defined() ? scales.index_select(0, group.channels) : scales;
  }

  // Undefined: no scale was moved. `balance`: any of the group's.
  at::Tensor linear_scales(const ScalingGroup& group, const std::vector<LinearSpec>& linears, const Linear& balance) {
    const auto id = std::get<models::LinearId>(group.smooth);
    const auto spec = std::find_if(linears.begin(), linears.end(), [&](const LinearSpec& each) { return each.id == id; });
    const auto input = inputs_.find(spec->input);
    if (input == inputs_.end()) fail(ErrorKind::kInternal, "{}: its input was not observed", spec->name);
    // The input as the scaled norm gives it.
    at::Tensor x = input->second;
    for (const GroupScales& found : found_.groups) {
      if (found.group.input == spec->input) x = x / found.scales;
    }
    const at::Tensor weight = std::get<FloatLinear>(weights_.at(id)).weight;
    const int64_t in_features = std::get<FloatLinear>(balance).weight.size(1);
    const SmoothOutputs outputs(group, x, weight, dense(model_.at(id)), in_features);
    const Fit fit = outputs.estimate();
    const double estimated = outputs.residual(fit.scales);
    const double untouched = outputs.residual(at::ones_like(fit.scales));
    const at::Tensor given = known_ ? known_(group) : at::Tensor();
    if (given.defined()) {
      const at::Tensor scales = given.to(at::kCPU, at::kFloat);
      const bool fits = scales.dim() == 1 && scales.size(0) == in_features;
      if (!fits || outputs.residual(scales) > kMostOfGiven * std::min(estimated, untouched) + 1e-6) {
        fail(ErrorKind::kCheckFailed, "{}: the given scales do not fit the model's weights: they are of another search",
             group.smooth_name);
      }
      return scales;
    }
    if (untouched <= kLeastGain * estimated) return {};
    ++found_.estimated;
    found_.uncertainty = std::max(found_.uncertainty, fit.uncertainty);
    return fit.scales;
  }

  std::vector<models::LinearSlot> expert_readers(const ScalingGroup& group) const {
    std::vector<models::LinearSlot> slots;
    if (!group.experts) return slots;
    for (const LinearSpec& spec : models::expert_layout(config_, layout_.block, 0)) {
      if (spec.input == group.input) slots.push_back(spec.id.slot);
    }
    return slots;
  }

  void find_in_experts() {
    for (int64_t expert = 0; expert < layout_.experts; ++expert) {
      MlpWeights& mine = weights_.experts.at(static_cast<size_t>(expert));
      const MlpWeights& other = model_.experts.at(static_cast<size_t>(expert));
      const std::vector<LinearSpec> specs = models::expert_layout(config_, layout_.block, expert);
      for (const LinearSpec& spec : specs) check_shape(spec, mine.at(spec.id.slot), other.at(spec.id.slot));
      std::vector<GroupScales>& found = found_.experts.emplace_back();
      for (const ScalingGroup& group : models::expert_scaling_groups(config_, layout_.block, expert)) {
        const at::Tensor scales = linear_scales(group, specs, mine.at(group.balance.front().slot));
        if (!scales.defined()) continue;
        models::apply_scales(mine, group, scales);
        found.push_back({group, scales, {}});
      }
    }
  }

  void check_rest() const {
    std::vector<LinearSpec> all = layout_.linears;
    for (int64_t expert = 0; expert < layout_.experts; ++expert) {
      const std::vector<LinearSpec> own = models::expert_layout(config_, layout_.block, expert);
      all.insert(all.end(), own.begin(), own.end());
    }
    for (const LinearSpec& spec : all) {
      const double left = relative_difference(dense(model_.at(spec.id)), std::get<FloatLinear>(weights_.at(spec.id)).weight);
      if (left <= kMostResidual) continue;
      fail(ErrorKind::kCheckFailed,
           "{}: {:.0f} % of the weight's size is left after the scales that explain it best: it is not the base's, scaled and "
           "rounded "
           "(rotated, or another model's)",
           spec.name, 100 * left);
    }
  }

  const models::DecoderConfig& config_;
  const models::BlockLayout layout_;
  const BlockInputs& inputs_;
  const KnownScales& known_;
  BlockWeights weights_;  // the base's, scaled as far as that is known
  const BlockWeights& model_;
  BlockSmoothing found_;
};

}  // namespace

BlockSmoothing find_smoothing(const models::DecoderConfig& config, int64_t block, const BlockWeights& base,
                              const BlockWeights& model, const BlockInputs& inputs, const KnownScales& known) {
  const at::NoGradGuard no_grad;
  return Finder(config, block, base, model, inputs, known).run();
}

BlockWeights smoothed(const BlockSmoothing& smoothing, const BlockWeights& base) {
  const at::NoGradGuard no_grad;
  BlockWeights weights = to_float(base);
  for (const GroupScales& found : smoothing.groups) apply(weights, found);
  for (size_t expert = 0; expert < smoothing.experts.size(); ++expert) {
    for (const GroupScales& found : smoothing.experts[expert])
      models::apply_scales(weights.experts[expert], found.group, found.scales);
  }
  // Back to the types that the base runs with.
  std::vector<const FloatLinear*> types;
  BlockWeights original = base;
  for_each_linear(original, [&](Linear& linear) { types.push_back(std::get_if<FloatLinear>(&linear)); });
  size_t next = 0;
  at::Device device = at::kCPU;
  for_each_linear(weights, [&](Linear& linear) {
    const FloatLinear& like = *types[next++];
    auto& plain = std::get<FloatLinear>(linear);
    if (!plain.weight.defined()) return;
    device = like.weight.device();
    plain.weight = plain.weight.to(like.weight.scalar_type());
    if (plain.bias.defined()) plain.bias = plain.bias.to(like.bias.scalar_type());
  });
  for (size_t slot = 0; slot < weights.norms.size(); ++slot) {
    models::Norm& norm = weights.norms[slot];
    if (norm.weight.defined()) norm.weight = norm.weight.to(base.norms[slot].weight.scalar_type());
    if (norm.bias.defined()) norm.bias = norm.bias.to(base.norms[slot].bias.scalar_type());
  }
  if (weights.mlp.activation_scales.defined()) {
    const at::Tensor& like = std::get<FloatLinear>(base.mlp.down).weight;
    weights.mlp.activation_scales = weights.mlp.activation_scales.to(like.scalar_type());
  }
  return models::to_device(std::move(weights), device);
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  const int64_t rows = a.dim() == 0 ? 0 : a.size(0);
  const int64_t at_once = std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, a.numel() / std::max<int64_t>(1, rows)));
  double difference = 0;
  double size = 0;
  for (int64_t begin = 0; begin < rows; begin += at_once) {
    const int64_t count = std::min(at_once, rows - begin);
    const at::Tensor expected = b.narrow(0, begin, count).to(at::kFloat);
    const at::Tensor is = a.narrow(0, begin, count).to(expected.device(), at::kFloat);
    difference += (is - expected).square().sum(at::kDouble).item<double>();
    size += expected.square().sum(at::kDouble).item<double>();
  }
  return difference == 0 ? 0.0 : std::sqrt(difference / size);
}

}  // namespace salient::eval
