#include "pipeline/awq_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>

#include "common/error.h"
#include "models/decoder/scaling_groups.h"
#include "quant/affine.h"
#include "quant/awq_gemm.h"

namespace salient::pipeline {
namespace {

using models::BlockWeights;
using models::LinearSlot;
using models::NormSlot;

quant::AffineOptions affine_options(const quant::QuantizationSpec& spec, int64_t in_features) {
  return {spec.weight_bits, quant::resolve_group_size(spec.group_size, in_features), spec.zero_point};
}

const at::Tensor& weight_of(const BlockWeights& weights, LinearSlot slot) {
  return std::get<models::FloatLinear>(weights.at(slot)).weight;
}

// What was done to one linear before it is quantized: W' = W * columns / rows.
struct AppliedScales {
  at::Tensor columns;
  at::Tensor rows;
  std::string kind = "identity";
  double ratio = 0;
};

const quant::InputStatistics& input_statistics(const BlockStatistics& statistics, LinearSlot slot) {
  return statistics[static_cast<size_t>(models::input_of(slot))];
}

// Searches every group on the original weights, then applies them all.
std::array<AppliedScales, models::kLinearSlots> search_and_apply(const models::DecoderConfig& config, BlockWeights& weights,
                                                                 const BlockStatistics& statistics, const AwqOptions& options) {
  std::array<AppliedScales, models::kLinearSlots> applied;
  const std::vector<models::ScalingGroup> groups = models::scaling_groups(config, weights);
  std::vector<quant::ScaleSearchResult> found;
  for (const models::ScalingGroup& group : groups) {
    std::vector<at::Tensor> balance;
    for (const LinearSlot slot : group.balance) balance.push_back(weight_of(weights, slot));
    found.push_back(quant::search_scales(balance, statistics[static_cast<size_t>(group.input)],
                                         affine_options(options.spec, balance.front().size(1)), options.scale_search, group.tie));
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    const at::Tensor columns = models::apply_scales(weights, groups[i], found[i].scales);
    for (const LinearSlot slot : groups[i].balance) {
      AppliedScales& scales = applied[static_cast<size_t>(slot)];
      scales.columns = columns;
      scales.kind = found[i].kind;
      scales.ratio = found[i].ratio;
    }
    if (const auto* smooth = std::get_if<LinearSlot>(&groups[i].smooth)) {
      at::Tensor rows = columns;
      if (groups[i].tie.defined()) {
        rows = at::ones({weight_of(weights, *smooth).size(0)}, at::kFloat);
        rows.index_put_({groups[i].tie}, columns);
      }
      applied[static_cast<size_t>(*smooth)].rows = rows;
    }
  }
  return applied;
}

// The Gram matrix of x / columns.
at::Tensor scaled_gram(const at::Tensor& gram, const at::Tensor& columns) {
  if (!columns.defined()) return gram;
  return gram / columns.unsqueeze(0) / columns.unsqueeze(1);
}

double stored_error(const at::Tensor& dense, const at::Tensor& weight, const at::Tensor& gram, int64_t tokens, const at::Tensor& rows) {
  at::Tensor by_row = quant::output_error_by_row(dense - weight, gram, tokens);
  if (rows.defined()) by_row = by_row * rows * rows;  // back to the units of the original output
  return by_row.sum(at::kDouble).item<double>();
}

// fp16 as stored, checked: a value beyond its range would silently become infinite.
at::Tensor to_half(const at::Tensor& tensor, const std::string& name) {
  const at::Tensor half = tensor.to(at::kHalf);
  if (!half.isfinite().all().item<bool>()) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: a value of magnitude {} does not fit float16", name,
                                                     tensor.abs().max().item<double>()))
        .with_hint("AutoAWQ checkpoints are float16; this model needs a format that keeps bfloat16");
  }
  return half;
}

}  // namespace

QuantizedBlock quantize_block(const models::DecoderConfig& config, int64_t block, BlockWeights weights,
                              const BlockStatistics& statistics, const AwqOptions& options) {
  const models::Architecture& architecture = models::find_architecture(config.model_type);
  QuantizedBlock result;

  std::array<double, models::kLinearSlots> rtn_error{};
  for (size_t i = 0; i < models::kLinearSlots; ++i) {
    const auto slot = static_cast<LinearSlot>(i);
    const auto& input = input_statistics(statistics, slot);
    const at::Tensor& weight = weight_of(weights, slot);
    rtn_error[i] = quant::output_error(quant::quantization_error(weight, {}, affine_options(options.spec, weight.size(1))), input.gram,
                                       input.rows);
  }

  const auto applied = search_and_apply(config, weights, statistics, options);

  for (size_t i = 0; i < models::kLinearSlots; ++i) {
    const auto slot = static_cast<LinearSlot>(i);
    const std::string name = models::linear_name(architecture, block, slot);
    auto& linear = std::get<models::FloatLinear>(weights.at(slot));
    const auto& input = input_statistics(statistics, slot);
    const quant::AffineOptions affine = affine_options(options.spec, linear.weight.size(1));
    const at::Tensor gram = scaled_gram(input.gram, applied[i].columns);

    quant::ClipSearchResult clip;
    if (options.clip) clip = quant::search_clip(linear.weight, gram, input.rows, affine, options.clip_search);
    const quant::QuantizedWeight quantized = quant::quantize_affine(linear.weight, affine, options.clip ? &clip.range : nullptr);
    const at::Tensor dense = quant::dequantize(quantized);
    result.reports.push_back({name, rtn_error[i], stored_error(dense, linear.weight, gram, input.rows, applied[i].rows),
                              applied[i].kind, applied[i].ratio, clip.clipped_share});

    const quant::PackedGemm packed = quant::pack_awq_gemm(quantized);
    result.tensors.push_back({name + ".qweight", packed.qweight});
    result.tensors.push_back({name + ".qzeros", packed.qzeros});
    result.tensors.push_back({name + ".scales", packed.scales});
    linear.weight = dense;
    if (linear.bias.defined()) {
      const at::Tensor bias = to_half(linear.bias, name + ".bias");
      result.tensors.push_back({name + ".bias", bias});
      linear.bias = bias.to(at::kFloat);
    }
  }
  for (size_t i = 0; i < models::kNormSlots; ++i) {
    at::Tensor& norm = weights.norms[i];
    if (!norm.defined()) continue;
    const std::string name = models::norm_name(architecture, block, static_cast<NormSlot>(i));
    const at::Tensor half = to_half(norm, name);
    result.tensors.push_back({name, half});
    norm = half.to(at::kFloat);
  }
  result.weights = std::move(weights);
  return result;
}

std::vector<models::PlannedTensor> plan_norms(const models::DecoderConfig& config, int64_t block) {
  const models::Architecture& architecture = models::find_architecture(config.model_type);
  std::vector<models::PlannedTensor> plan;
  for (size_t i = 0; i < models::kNormSlots; ++i) {
    const auto slot = static_cast<NormSlot>(i);
    if (architecture.norms[i].empty()) continue;
    const bool per_head = slot == NormSlot::kQuery || slot == NormSlot::kKey;
    if (per_head && !config.qk_norm) continue;
    plan.push_back({models::norm_name(architecture, block, slot), at::kHalf, {per_head ? config.head_dim : config.hidden_size}});
  }
  return plan;
}

std::vector<models::PlannedTensor> plan_block(const models::DecoderConfig& config, int64_t block, const AwqOptions& options) {
  const models::Architecture& architecture = models::find_architecture(config.model_type);
  std::vector<models::PlannedTensor> plan;
  for (size_t i = 0; i < models::kLinearSlots; ++i) {
    const auto slot = static_cast<LinearSlot>(i);
    const std::string name = models::linear_name(architecture, block, slot);
    const auto [out, in] = models::linear_shape(config, slot);
    const int64_t groups =
        in / with_context(name, [&, in = in] { return quant::resolve_group_size(options.spec.group_size, in); });
    if (out % 8 != 0) {
      fail(ErrorKind::kInvalidArgument, "{}: AutoAWQ's GEMM layout needs output channels in multiples of 8, found {}", name, out);
    }
    plan.push_back({name + ".qweight", at::kInt, {in, out / 8}});
    plan.push_back({name + ".qzeros", at::kInt, {groups, out / 8}});
    plan.push_back({name + ".scales", at::kHalf, {groups, out}});
    if (models::linear_has_bias(config, slot)) plan.push_back({name + ".bias", at::kHalf, {out}});
  }
  for (models::PlannedTensor& norm : plan_norms(config, block)) plan.push_back(std::move(norm));
  return plan;
}

}  // namespace salient::pipeline
