#include "pipeline/awq_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "common/error.h"
#include "common/memory.h"
#include "pipeline/mappings.h"

namespace salient::pipeline {
namespace {

using models::BlockWeights;
using models::FloatLinear;
using models::LinearId;
using models::LinearSpec;
using models::MlpWeights;
using models::ScalingGroup;

const LinearSpec& spec_of(const std::vector<LinearSpec>& specs, LinearId id) {
  const auto it = std::find_if(specs.begin(), specs.end(), [&](const LinearSpec& spec) { return spec.id == id; });
  if (it == specs.end()) fail(ErrorKind::kInternal, "no linear {} in this block", static_cast<int>(id.slot));
  return *it;
}

// The search counts the linears that will be rounded. Smoothing alone counts as if they were.
bool counts(const LinearSpec& spec, const AwqOptions& options) {
  AwqOptions as_packed = options;
  as_packed.format = WeightFormat::kAwqGemm;
  return is_quantized(spec, as_packed);
}

void for_each_expert(const models::BlockLayout& layout, const models::DecoderConfig& config, const ScalingGroup& group,
                     const ExpertLoader& load_expert, const AwqOptions& options,
                     const std::function<void(const at::Tensor& weight)>& work) {
  for (int64_t expert = 0; group.experts && expert < layout.experts; ++expert) {
    const MlpWeights weights = load_expert(expert);
    for (const LinearSpec& spec : models::expert_layout(config, layout.block, expert)) {
      if (spec.input == group.input && counts(spec, options)) work(std::get<FloatLinear>(weights.at(spec.id.slot)).weight);
    }
  }
}

bool counts_experts(const models::DecoderConfig& config, const models::BlockLayout& layout, const ScalingGroup& group,
                    const AwqOptions& options) {
  for (int64_t expert = 0; group.experts && expert < layout.experts; ++expert) {
    for (const LinearSpec& spec : models::expert_layout(config, layout.block, expert)) {
      if (spec.input == group.input && counts(spec, options)) return true;
    }
  }
  return false;
}

// The rows of a linear that the search counts. Where q_proj also gives a gate (Qwen3-Next), only the queries: gates saturate, so
// that their error says little, and with them counted scales are found that break Qwen 3.5 (llm-compressor's pull requests 2630 and
// 2636).
at::Tensor counted_rows(const models::DecoderConfig& config, const LinearSpec& spec, const at::Tensor& weight) {
  if (spec.id.slot != models::LinearSlot::kQProj || !config.query_gate) return weight;
  return weight.view({config.num_attention_heads, 2, config.head_dim, -1})
      .select(1, 0)
      .reshape({config.num_attention_heads * config.head_dim, -1});
}

// Nothing when none of the group's linears is rounded.
std::optional<quant::ScaleSearchResult> search(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                               const BlockWeights& weights, const ScalingGroup& group,
                                               const BlockStatistics& statistics, const ExpertLoader& load_expert,
                                               const AwqOptions& options) {
  std::vector<at::Tensor> balance;
  for (const LinearId id : group.balance) {
    const LinearSpec& spec = spec_of(layout.linears, id);
    if (counts(spec, options)) balance.push_back(counted_rows(config, spec, std::get<FloatLinear>(weights.at(id)).weight));
  }
  if (balance.empty() && !counts_experts(config, layout, group, options)) return std::nullopt;
  const quant::InputStatistics& input = statistics.at(group.input);
  quant::ScaleSearch run(input, affine_options(options.spec, input.gram.size(0)), options.scale_search, group.tie);
  for (const at::Tensor& weight : balance) run.add_magnitude(weight);
  for_each_expert(layout, config, group, load_expert, options, [&](const at::Tensor& weight) { run.add_magnitude(weight); });
  for (const at::Tensor& weight : balance) run.add_error(weight);
  for_each_expert(layout, config, group, load_expert, options, [&](const at::Tensor& weight) { run.add_error(weight); });
  return run.finish();
}

// What was done to each linear outside of the experts, and to the experts' input.
struct Applied {
  std::map<LinearId, AppliedScales> linears;
  AppliedScales expert_input;
};

// The tensor whose rounding the balance linears take up.
std::string smooth_tensor(const ScalingGroup& group) {
  return std::holds_alternative<models::ParameterSlot>(group.smooth) ? group.smooth_name : group.smooth_name + ".weight";
}

// Searches every group on the original weights, then applies them all.
Applied search_and_apply(const models::DecoderConfig& config, const models::BlockLayout& layout, BlockWeights& weights,
                         const BlockStatistics& statistics, const ExpertLoader& load_expert, const AwqOptions& options,
                         const StoredDtype& stored) {
  const std::vector<ScalingGroup> groups = searched_groups(config, layout, options);
  std::vector<std::optional<quant::ScaleSearchResult>> found;
  for (const ScalingGroup& group : groups) {
    found.push_back(search(config, layout, weights, group, statistics, load_expert, options));
    return_free_memory();
  }
  Applied applied;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!found[i]) continue;
    const ScalingGroup& group = groups[i];
    const at::Tensor columns = models::apply_scales(weights, group, found[i]->scales, stored(smooth_tensor(group)));
    const auto note = [&](AppliedScales& scales) {
      scales.columns = columns;
      scales.kind = found[i]->kind;
      scales.ratio = found[i]->ratio;
    };
    for (const LinearId id : group.balance) note(applied.linears[id]);
    if (group.experts) note(applied.expert_input);
    if (const auto* smooth = std::get_if<LinearId>(&group.smooth)) {
      applied.linears[*smooth].rows = models::divided_rows(group, columns, spec_of(layout.linears, *smooth).out_features);
    }
  }
  return applied;
}

// One expert's matrices as they lie in a tensor of all experts: gate and up in one.
void store_fused_expert(const std::vector<LinearSpec>& specs, MlpWeights& weights, const StoredDtype& stored,
                        const TensorSink& sink) {
  std::map<std::string, at::Tensor> matrices;
  std::map<std::string, at::Tensor> biases;
  const auto rows_of = [](const models::FusedPart& part, const LinearSpec& spec, const at::Tensor& all) {
    return all.slice(0, part.row_begin, part.row_begin + (spec.out_features - 1) * part.row_step + 1, part.row_step);
  };
  for (const LinearSpec& spec : specs) {
    const models::FusedPart& part = *spec.fused;
    auto& linear = std::get<FloatLinear>(weights.at(spec.id.slot));
    linear.weight = to_stored_dtype(linear.weight, stored(part.tensor), part.tensor).to(at::kFloat);
    at::Tensor& matrix = matrices[part.tensor];
    if (!matrix.defined()) matrix = at::zeros({part.rows, spec.in_features}, at::kFloat);
    rows_of(part, spec, matrix).copy_(linear.weight);
    if (part.bias.empty()) continue;
    linear.bias = to_stored_dtype(linear.bias, stored(part.bias), part.bias).to(at::kFloat);
    at::Tensor& bias = biases[part.bias];
    if (!bias.defined()) bias = at::zeros({part.rows}, at::kFloat);
    rows_of(part, spec, bias).copy_(linear.bias);
  }
  const models::FusedPart& first = *specs.front().fused;
  for (const auto& [name, matrix] : matrices)
    sink.put_part(name, first.expert, (first.transposed ? matrix.t() : matrix).to(stored(name)));
  for (const auto& [name, bias] : biases) sink.put_part(name, first.expert, bias.to(stored(name)));
}

void store_norms(const models::BlockLayout& layout, BlockWeights& weights, const StoredDtype& stored, const TensorSink& sink) {
  for (const models::NormSpec& spec : layout.norms) {
    models::Norm& norm = weights.at(spec.slot);
    if (!norm.weight.defined()) continue;
    const auto store = [&](at::Tensor& tensor, const char* part) {
      if (!tensor.defined()) return;
      tensor = to_stored_dtype(tensor, stored(spec.names.front() + part), spec.names.front() + part);
      for (size_t i = 0; i < spec.names.size(); ++i) {
        sink.put(spec.names[i] + part, spec.names.size() == 1 ? tensor : tensor[static_cast<int64_t>(i)]);
      }
      tensor = tensor.to(at::kFloat);
    };
    store(norm.weight, ".weight");
    store(norm.bias, ".bias");
  }
}

void store_activation_scales(const models::BlockLayout& layout, BlockWeights& weights, const StoredDtype& stored,
                             const TensorSink& sink) {
  for (const models::ParameterSpec& spec : layout.parameters) {
    if (spec.slot != models::ParameterSlot::kActivationScales) continue;
    at::Tensor& scales = weights.mlp.activation_scales;
    // Readers of packed checkpoints take the divisor from the file without asking whether it is there.
    if (!scales.defined()) scales = at::ones(spec.shape, at::kFloat);
    sink.put(spec.name, scales.to(stored(spec.name)));
  }
}

}  // namespace

std::vector<ScalingGroup> searched_groups(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                          const AwqOptions& options) {
  std::vector<ScalingGroup> groups = models::scaling_groups(config, layout);
  // A float checkpoint has no place for an activation's divisor.
  if (options.format == WeightFormat::kFloat) {
    std::erase_if(groups, [](const ScalingGroup& group) { return std::holds_alternative<models::ParameterSlot>(group.smooth); });
  }
  return select_groups(config, layout, std::move(groups), options.mappings);
}

QuantizedBlock quantize_block(const models::DecoderConfig& config, const models::BlockLayout& layout, BlockWeights weights,
                              const BlockStatistics& statistics, const ExpertLoader& load_expert, const AwqOptions& options,
                              const StoredDtype& stored, const TensorSink& sink) {
  QuantizedBlock result;
  std::map<LinearId, double> rtn_error;
  for (const LinearSpec& spec : layout.linears) {
    if (is_quantized(spec, options)) {
      rtn_error[spec.id] =
          round_to_nearest_error(std::get<FloatLinear>(weights.at(spec.id)).weight, statistics.at(spec.input), options);
    }
  }
  Applied applied = search_and_apply(config, layout, weights, statistics, load_expert, options, stored);
  for (const LinearSpec& spec : layout.linears) {
    auto& linear = std::get<FloatLinear>(weights.at(spec.id));
    if (!is_quantized(spec, options)) {
      store_float_linear(spec, linear, stored, sink);
      continue;
    }
    result.reports.push_back(
        quantize_linear(spec, linear, statistics.at(spec.input), applied.linears[spec.id], /*search=*/true, options, sink));
    result.reports.back().rtn_error = rtn_error.at(spec.id);
    return_free_memory();
  }
  store_norms(layout, weights, stored, sink);
  if (options.format != WeightFormat::kFloat) store_activation_scales(layout, weights, stored, sink);
  result.weights = std::move(weights);
  result.expert_input = std::move(applied.expert_input);
  return result;
}

QuantizedExpert quantize_expert(const models::DecoderConfig& config, int64_t block, int64_t expert, MlpWeights weights,
                                const quant::InputStatistics& input, const quant::InputStatistics& hidden,
                                const AppliedScales& expert_input, int64_t routed_tokens, const AwqOptions& options,
                                const StoredDtype& stored, const TensorSink& sink) {
  const std::vector<LinearSpec> specs = models::expert_layout(config, block, expert);
  const auto statistics_of = [&](const LinearSpec& spec) -> const quant::InputStatistics& {
    return spec.input.slot == models::InputSlot::kMlpHidden ? hidden : input;
  };
  std::map<LinearId, double> rtn_error;
  for (const LinearSpec& spec : specs) {
    if (is_quantized(spec, options)) {
      rtn_error[spec.id] =
          round_to_nearest_error(std::get<FloatLinear>(weights.at(spec.id.slot)).weight, statistics_of(spec), options);
    }
  }
  const bool reached = routed_tokens > 0;
  std::map<LinearId, AppliedScales> applied;
  std::vector<ScalingGroup> groups = models::expert_scaling_groups(config, block, expert);
  if (!options.mappings.empty()) groups = select_expert_groups(config, block, expert, std::move(groups), options.mappings);
  for (const ScalingGroup& group : groups) {
    const LinearSpec& down = spec_of(specs, group.balance.front());
    if (!reached || !counts(down, options)) continue;
    const at::Tensor& weight = std::get<FloatLinear>(weights.at(down.id.slot)).weight;
    const auto found =
        quant::search_scales({weight}, hidden, affine_options(options.spec, weight.size(1)), options.scale_search, group.tie);
    models::apply_scales(weights, group, found.scales);
    applied[down.id] = {found.scales, {}, found.kind, found.ratio};
    const LinearId smooth = std::get<LinearId>(group.smooth);
    applied[smooth].rows = models::divided_rows(group, found.scales, spec_of(specs, smooth).out_features);
  }
  for (const LinearSpec& spec : specs) {
    if (spec.input.slot == models::InputSlot::kMlpHidden || !expert_input.columns.defined()) continue;
    models::scale_columns(weights.at(spec.id.slot), expert_input.columns);
    AppliedScales& scales = applied[spec.id];
    scales.columns = expert_input.columns;
    scales.kind = expert_input.kind;
    scales.ratio = expert_input.ratio;
  }
  QuantizedExpert result;
  if (options.format == WeightFormat::kFloat && specs.front().fused) {
    store_fused_expert(specs, weights, stored, sink);
  } else {
    for (const LinearSpec& spec : specs) {
      auto& linear = std::get<FloatLinear>(weights.at(spec.id.slot));
      if (!is_quantized(spec, options)) {
        store_float_linear(spec, linear, stored, sink);
        continue;
      }
      LinearReport report = quantize_linear(spec, linear, statistics_of(spec), applied[spec.id], reached, options, sink);
      report.rtn_error = rtn_error.at(spec.id);
      report.routed_tokens = routed_tokens;
      result.reports.push_back(std::move(report));
    }
  }
  result.weights = std::move(weights);
  return result;
}

}  // namespace salient::pipeline
