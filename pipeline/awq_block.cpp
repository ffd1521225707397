#include "pipeline/awq_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "common/error.h"
#include "common/memory.h"
#include "common/shares.h"
#include "pipeline/block_objective.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/group_search.h"
#include "pipeline/mappings.h"
#include "pipeline/rank_exchange.h"
#include "pipeline/search_result.h"
#include "pipeline/stored_range.h"

namespace salient::pipeline {
namespace {

using models::BlockWeights;
using models::FloatLinear;
using models::InputId;
using models::LinearId;
using models::LinearSpec;
using models::MlpWeights;
using models::ScalingGroup;

// Whether quantize_linears takes the linear: rounded, or with smoothing alone cut to the ranges that were found.
bool is_rounded(const LinearSpec& spec, const AwqOptions& options) {
  return is_quantized(spec, options) || (options.export_compatible && is_searched(spec, options));
}

// A part of a tensor with all experts has no dtype under its own name; what is put back is converted by the caller.
StoredDtype one_dtype_of(bool fused, const StoredDtype& stored) {
  if (!fused) return stored;
  return [](const std::string&) { return at::kFloat; };
}

constexpr const char* kMixtureNote = "objective block: mixtures of experts are not run, the scales are by objective gram";

// For whoever wants to apply it elsewhere (pipeline/search_file.h).
void keep_found(SearchResult* kept, const ScalingGroup& group, const std::vector<LinearSpec>& linears,
                const quant::ScaleSearchResult& found) {
  if (kept == nullptr) return;
  FoundScales scales{{}, found.kind, found.ratio, found.scales};
  for (const LinearId id : group.balance) scales.balance.push_back(spec_of(linears, id).name);
  kept->scales[group.smooth_name] = std::move(scales);
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

int64_t input_features(const models::DecoderConfig& config, const models::BlockLayout& layout, const ScalingGroup& group) {
  if (!group.balance.empty()) return spec_of(layout.linears, group.balance.front()).in_features;
  return models::expert_layout(config, layout.block, 0).front().in_features;
}

// Largest magnitude in each input channel of the experts' matrices that are stored in float16; undefined where there are none.
at::Tensor stored_expert_reach(const models::DecoderConfig& config, const models::BlockLayout& layout, const ScalingGroup& group,
                               const ExpertLoader& load_expert, const AwqOptions& options, const StoredDtype& stored) {
  at::Tensor reach;
  for (int64_t expert = 0; group.experts && expert < layout.experts; ++expert) {
    std::optional<MlpWeights> weights;
    for (const LinearSpec& spec : models::expert_layout(config, layout.block, expert)) {
      const bool whole = spec.fused && row_of(options.format).keeps_layout();
      if (!(spec.input == group.input) || is_quantized(spec, options)) continue;
      if (stored(whole ? spec.fused->tensor : spec.name + ".weight") != at::kHalf) continue;
      if (!weights) weights = load_expert(expert);
      const at::Tensor largest = std::get<FloatLinear>(weights->at(spec.id.slot)).weight.abs().amax(0);
      reach = reach.defined() ? at::maximum(reach, largest) : largest;
    }
  }
  return reach;
}

// A norm's weight that its dtype does not hold: identity leaves to the linears behind it what is missing.
std::string norm_note(const ScalingGroup& group, at::ScalarType dtype) {
  return fmt::format("{} does not fit {}: the linears that read it hold the rest", smooth_tensor(group), dtype_text(dtype));
}

// Applies one group's scales, or identity where something that is stored would overflow, or nothing where that would, too.
AppliedScales apply_what_fits(const models::BlockLayout& layout, BlockWeights& weights, const ScalingGroup& group,
                              const quant::ScaleSearchResult& found, const at::Tensor& expert_reach, const AwqOptions& options,
                              const StoredDtype& stored) {
  const at::ScalarType dtype = stored(smooth_tensor(group));
  const auto* norm = std::get_if<models::NormSlot>(&group.smooth);
  const BlockWeights before = weights;  // the tensors are shared
  const bool cut_off = norm != nullptr && !fits(weights.at(*norm).weight, dtype);
  std::string reason;
  const auto linear_of = [&](LinearId id) -> const FloatLinear& { return std::get<FloatLinear>(weights.at(id)); };
  const auto attempt = [&](const at::Tensor& scales) {
    const at::Tensor columns = models::apply_scales(weights, group, scales, dtype);
    std::string overflow =
        first_overflow(group, layout.linears, options, stored, linear_of, norm != nullptr ? &weights.at(*norm) : nullptr);
    if (overflow.empty() && expert_reach.defined() && !fits(expert_reach * columns, at::kHalf))
      overflow = "a weight of the experts";
    if (overflow.empty()) return columns;
    if (reason.empty()) reason = overflow;
    weights = before;
    return at::Tensor();
  };
  AppliedScales applied;
  applied.kind = found.kind;
  applied.ratio = found.ratio;
  applied.columns = attempt(found.scales);
  if (!applied.columns.defined()) {
    applied.columns = attempt(at::ones_like(found.scales));
    if (found.kind != "identity")
      applied.note = fmt::format("scales {} {:.3g} left out: {} would overflow", found.kind, found.ratio, reason);
    applied.kind = "identity";
    applied.ratio = 0;
  }
  if (cut_off && applied.columns.defined()) applied.note += (applied.note.empty() ? "" : "; ") + norm_note(group, dtype);
  return applied;
}

// Searches every group on the original weights, then applies them all.
Applied search_and_apply(const models::DecoderConfig& config, const models::BlockLayout& layout, BlockWeights& weights,
                         const BlockStatistics& statistics, const UntouchedWeights& untouched, const ExpertLoader& load_expert,
                         const AwqOptions& options, const StoredDtype& stored, SearchResult* kept, BlockObjective* objective,
                         Ranks* ranks) {
  std::vector<ScalingGroup> groups = searched_groups(config, layout, options);
  std::vector<std::optional<quant::ScaleSearchResult>> found =
      search_groups({config, layout, weights, statistics, untouched, load_expert, options, objective}, groups, ranks);
  for (size_t i = 0; i < groups.size(); ++i) {
    if (found[i]) keep_found(kept, groups[i], layout.linears, *found[i]);
  }
  // Norms that nothing is searched for, but whose weight cannot be stored as it is.
  for (ScalingGroup& group : models::scaling_groups(config, layout)) {
    const auto* norm = std::get_if<models::NormSlot>(&group.smooth);
    if (norm == nullptr || !weights.at(*norm).weight.defined() || fits(weights.at(*norm).weight, stored(smooth_tensor(group))))
      continue;
    size_t i = 0;
    while (i < groups.size() && !(groups[i].smooth == group.smooth)) ++i;
    const at::Tensor identity = at::ones({input_features(config, layout, group)}, at::kFloat);
    if (i == groups.size()) {
      groups.push_back(std::move(group));
      found.emplace_back();
    }
    if (!found[i]) found[i] = quant::ScaleSearchResult{identity, 0, 0, "identity", 0};
  }
  Applied applied;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!found[i]) continue;
    const ScalingGroup& group = groups[i];
    const at::Tensor reach = stored_expert_reach(config, layout, group, load_expert, options, stored);
    AppliedScales done = apply_what_fits(layout, weights, group, *found[i], reach, options, stored);
    if (objective != nullptr && module_of(group) == GroupModule::kMixture)
      done.note += (done.note.empty() ? "" : "; ") + std::string(kMixtureNote);
    const auto take = [&](AppliedScales& scales) {
      scales.columns = done.columns;
      scales.kind = done.kind;
      scales.ratio = done.ratio;
      scales.note = done.note;
    };
    for (const LinearId id : group.balance) take(applied.linears[id]);
    if (group.experts) take(applied.expert_input);
    if (const auto* smooth = std::get_if<LinearId>(&group.smooth); smooth != nullptr && done.columns.defined()) {
      applied.linears[*smooth].rows = models::divided_rows(group, done.columns, spec_of(layout.linears, *smooth).out_features);
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

// The linears that read one input. One rank takes all of them, as rounding has them share the factorisation of its Gram matrix and
// the choice of how far that is trusted (quant/gram_rounding.h).
struct InputLinears {
  InputId input;
  std::vector<const LinearSpec*> linears;
  double cost = 0;
  int owner = 0;
};

// Of the linears that are rounded, in the order of the layout. Costs are in multiplications with a Gram matrix, weighted as
// measured on blocks of the size of Qwen3-0.6B's: compensation and errors take the whole matrix, ranges about ten times a group's
// part of it, and factorisations a part of its own size.
std::vector<InputLinears> share_linears(const models::BlockLayout& layout, const AwqOptions& options, int ranks) {
  constexpr double kClipProducts = 10;
  constexpr double kFactorisations = 0.3;
  std::vector<InputLinears> inputs;
  for (const LinearSpec& spec : layout.linears) {
    if (!is_rounded(spec, options)) continue;
    auto input = std::find_if(inputs.begin(), inputs.end(), [&](const InputLinears& other) { return other.input == spec.input; });
    const auto width = static_cast<double>(spec.in_features);
    if (input == inputs.end()) {
      const bool factorises = options.rounding.kind == quant::RoundingKind::kGram;
      inputs.push_back({spec.input, {}, factorises ? kFactorisations * width * width * width : 0.0, 0});
      input = inputs.end() - 1;
    }
    input->linears.push_back(&spec);
    const auto group = static_cast<double>(affine_options(options, spec.name, spec.in_features).group_size);
    const double clip = options.clip && options.search == nullptr ? kClipProducts * group : 0.0;
    input->cost += static_cast<double>(spec.out_features) * width * (width + clip);
  }
  std::vector<double> costs;
  for (const InputLinears& input : inputs) costs.push_back(input.cost);
  const std::vector<int> owners = share_by_cost(costs, ranks);
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i].owner = owners[i];
  return inputs;
}

}  // namespace

std::vector<ScalingGroup> searched_groups(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                          const AwqOptions& options) {
  std::vector<ScalingGroup> groups = models::scaling_groups(config, layout);
  if (!holds_activation_scales(options.format)) {
    std::erase_if(groups, [](const ScalingGroup& group) { return std::holds_alternative<models::ParameterSlot>(group.smooth); });
  }
  return select_groups(config, layout, std::move(groups), options.mappings);
}

QuantizedBlock quantize_block(const models::DecoderConfig& config, const models::BlockLayout& layout, BlockWeights weights,
                              BlockStatistics statistics, const ExpertLoader& load_expert, const AwqOptions& options,
                              const StoredDtype& stored, const TensorSink& sink, const LinearsWork& work, BlockObjective* objective,
                              Ranks* ranks) {
  QuantizedBlock result;
  const std::vector<InputLinears> inputs = share_linears(layout, options, ranks != nullptr ? ranks->size() : 1);
  const auto is_own = [&](const InputLinears& input) { return ranks == nullptr || input.owner == ranks->rank(); };
  const auto linear_of = [&](const LinearSpec& spec) -> FloatLinear& { return std::get<FloatLinear>(weights.at(spec.id)); };
  UntouchedWeights untouched;
  for (const InputLinears& input : inputs) {
    for (const LinearSpec* spec : input.linears) {
      if (is_own(input))
        untouched[spec->id] = measure_untouched(*spec, linear_of(*spec).weight, statistics.at(input.input), options);
    }
  }
  Applied applied =
      search_and_apply(config, layout, weights, statistics, untouched, load_expert, options, stored, sink.found, objective, ranks);
  for (const InputLinears& input : inputs) {
    if (!is_own(input)) statistics.erase(input.input);
  }
  for (const LinearSpec& spec : layout.linears) {
    if (!is_rounded(spec, options)) store_float_linear(spec, linear_of(spec), stored, sink);
  }
  std::map<LinearId, LinearReport> reports;
  std::vector<RankParcel> parcels(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!is_own(inputs[i])) continue;
    std::vector<LinearJob> jobs;
    for (const LinearSpec* spec : inputs[i].linears)
      jobs.push_back({spec, &linear_of(*spec), applied.linears[spec->id], untouched[spec->id]});
    parcels[i].reports = work(jobs, std::move(statistics.extract(inputs[i].input).mapped()), /*search=*/true, options, stored,
                              inputs[i].owner == 0 ? sink : parcels[i].sink(sink));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (ranks != nullptr) {
      parcels[i].hand_over(inputs[i].owner, sink, *ranks);
      for (const LinearSpec* spec : inputs[i].linears) broadcast_linear(linear_of(*spec), inputs[i].owner, *ranks);
    }
    std::vector<LinearReport>& found = parcels[i].reports;
    for (size_t j = 0; j < found.size(); ++j) reports[inputs[i].linears[j]->id] = std::move(found[j]);
  }
  for (const LinearSpec& spec : layout.linears) {
    if (is_rounded(spec, options)) result.reports.push_back(std::move(reports[spec.id]));
  }
  store_norms(layout, weights, stored, sink);
  if (holds_activation_scales(options.format)) store_activation_scales(layout, weights, stored, sink);
  result.weights = std::move(weights);
  result.expert_input = std::move(applied.expert_input);
  return result;
}

QuantizedExpert quantize_expert(const models::DecoderConfig& config, int64_t block, int64_t expert, MlpWeights weights,
                                const quant::InputStatistics& input, const quant::InputStatistics& hidden,
                                const AppliedScales& expert_input, int64_t routed_tokens, const AwqOptions& options,
                                const StoredDtype& stored, const TensorSink& sink, const LinearsWork& work) {
  const std::vector<LinearSpec> specs = models::expert_layout(config, block, expert);
  const auto statistics_of = [&](const LinearSpec& spec) -> const quant::InputStatistics& {
    return spec.input.slot == models::InputSlot::kMlpHidden ? hidden : input;
  };
  const auto linear_of = [&](const LinearSpec& spec) -> FloatLinear& { return std::get<FloatLinear>(weights.at(spec.id.slot)); };
  UntouchedWeights untouched;
  for (const LinearSpec& spec : specs) {
    if (is_rounded(spec, options))
      untouched[spec.id] = measure_untouched(spec, linear_of(spec).weight, statistics_of(spec), options);
  }
  const bool reached = routed_tokens > 0;
  std::map<LinearId, AppliedScales> applied;
  std::vector<ScalingGroup> groups = models::expert_scaling_groups(config, block, expert);
  if (!options.mappings.empty()) groups = select_expert_groups(config, block, expert, std::move(groups), options.mappings);
  const MlpWeights before = weights;  // the tensors are shared
  const auto scale_inputs = [&] {
    for (const LinearSpec& spec : specs) {
      if (spec.input.slot == models::InputSlot::kMlpHidden || !(expert_input.columns.defined() || !expert_input.note.empty()))
        continue;
      if (expert_input.columns.defined()) models::scale_columns(weights.at(spec.id.slot), expert_input.columns);
      AppliedScales& scales = applied[spec.id];
      scales.columns = expert_input.columns;
      scales.kind = expert_input.kind;
      scales.ratio = expert_input.ratio;
      scales.note = expert_input.note;
    }
  };
  for (const ScalingGroup& group : groups) {
    const LinearSpec& down = spec_of(specs, group.balance.front());
    if (!(reached || options.search != nullptr) || !is_searched(down, options)) continue;
    const at::Tensor weight =
        without_channels(std::get<FloatLinear>(weights.at(down.id.slot)).weight, salient_inputs(hidden, options));
    const auto found = options.search != nullptr ? found_scales(*options.search, group)
                                                 : search_linear_scales(down.name, weight, hidden, options, group.tie);
    if (!found) continue;
    keep_found(sink.found, group, specs, *found);
    models::apply_scales(weights, group, found->scales);
    applied[down.id] = {found->scales, {}, found->kind, found->ratio};
    const LinearId smooth = std::get<LinearId>(group.smooth);
    applied[smooth].rows = models::divided_rows(group, found->scales, spec_of(specs, smooth).out_features);
  }
  scale_inputs();
  const auto const_linear_of = [&](LinearId id) -> const FloatLinear& { return std::get<FloatLinear>(weights.at(id.slot)); };
  for (const ScalingGroup& group : groups) {
    const AppliedScales tried = applied[group.balance.front()];
    const std::string overflow = first_overflow(group, specs, options, stored, const_linear_of);
    if (overflow.empty() || !tried.columns.defined()) continue;
    weights = before;
    applied.clear();
    applied[group.balance.front()].note =
        fmt::format("scales {} {:.3g} left out: {} would overflow", tried.kind, tried.ratio, overflow);
    scale_inputs();
  }
  QuantizedExpert result;
  // Written back into the tensor of all experts where the format keeps the source's layout.
  const bool fused = specs.front().fused && row_of(options.format).keeps_layout();
  const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, {}, sink.found};
  for (const models::InputSlot slot : {models::InputSlot::kMlpInput, models::InputSlot::kMlpHidden}) {
    std::vector<LinearJob> jobs;
    for (const LinearSpec& spec : specs) {
      if ((spec.input.slot == models::InputSlot::kMlpHidden) != (slot == models::InputSlot::kMlpHidden)) continue;
      if (is_rounded(spec, options)) {
        jobs.push_back({&spec, &linear_of(spec), applied[spec.id], untouched[spec.id]});
      } else if (!fused) {
        store_float_linear(spec, linear_of(spec), stored, sink);
      }
    }
    const quant::InputStatistics& read = slot == models::InputSlot::kMlpHidden ? hidden : input;
    for (LinearReport& report : work(jobs, read, reached, options, one_dtype_of(fused, stored), fused ? nowhere : sink)) {
      report.routed_tokens = routed_tokens;
      result.reports.push_back(std::move(report));
    }
  }
  if (fused) store_fused_expert(specs, weights, stored, sink);
  result.weights = std::move(weights);
  return result;
}

}  // namespace salient::pipeline
