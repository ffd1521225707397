#include "pipeline/group_search.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <functional>
#include <variant>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/memory.h"
#include "common/shares.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/rank_exchange.h"
#include "pipeline/search_result.h"

namespace salient::pipeline {
namespace {

using models::BlockWeights;
using models::FloatLinear;
using models::LinearId;
using models::LinearSpec;
using models::MlpWeights;
using models::ScalingGroup;

void for_each_expert(const BlockSearch& block, const ScalingGroup& group,
                     const std::function<void(const LinearSpec& spec, const at::Tensor& weight)>& work) {
  for (int64_t expert = 0; group.experts && expert < block.layout.experts; ++expert) {
    const MlpWeights weights = block.load_expert(expert);
    for (const LinearSpec& spec : models::expert_layout(block.config, block.layout.block, expert)) {
      if (spec.input == group.input && is_searched(spec, block.options))
        work(spec, std::get<FloatLinear>(weights.at(spec.id.slot)).weight);
    }
  }
}

bool counts_experts(const BlockSearch& block, const ScalingGroup& group) {
  for (int64_t expert = 0; group.experts && expert < block.layout.experts; ++expert) {
    for (const LinearSpec& spec : models::expert_layout(block.config, block.layout.block, expert)) {
      if (spec.input == group.input && is_searched(spec, block.options)) return true;
    }
  }
  return false;
}

// The rows of a linear that the search counts. Where q_proj also gives a gate (Qwen3-Next), only the queries: gates saturate, so
// that their error says little, and with them counted scales are found that break Qwen 3.5 (llm-compressor's pull requests 2630 and
// 2636).
// A view of `weight`, by heads where there are gates.
at::Tensor counted_part(const models::DecoderConfig& config, const LinearSpec& spec, const at::Tensor& weight) {
  if (spec.id.slot != models::LinearSlot::kQProj || !config.query_gate) return weight;
  return weight.view({config.num_attention_heads, 2, config.head_dim, -1}).select(1, 0);
}

at::Tensor counted_rows(const models::DecoderConfig& config, const LinearSpec& spec, const at::Tensor& weight) {
  return counted_part(config, spec, weight).reshape({-1, weight.size(1)});
}

// A linear whose error the search counts.
struct Balance {
  const LinearSpec* spec;
  quant::AffineOptions affine;
  at::Tensor weight;                     // without what stays in float
  std::optional<double> rtn_error = {};  // of `weight`, where it was measured already
};

// With every balance linear replaced by Q(W * s) / s.
BlockWeights with_rounded(const models::DecoderConfig& config, const BlockWeights& weights, const std::vector<Balance>& balance,
                          const at::Tensor& scales) {
  BlockWeights changed = weights;
  for (const Balance& linear : balance) {
    at::Tensor& weight = std::get<FloatLinear>(changed.at(linear.spec->id)).weight;
    weight = weight.clone();
    const at::Tensor counted = counted_part(config, *linear.spec, weight);
    const at::Tensor error = quant::quantization_error(linear.weight, scales, linear.affine);
    counted.add_(error.to(counted.device()).view_as(counted));
  }
  return changed;
}

// Nothing when none of the group's linears is rounded.
std::optional<quant::ScaleSearchResult> search(const BlockSearch& block, const ScalingGroup& group) {
  const models::DecoderConfig& config = block.config;
  const AwqOptions& options = block.options;
  const quant::InputStatistics& input = block.statistics.at(group.input);
  if (!options.scale || input.rows == 0) return std::nullopt;  // no token with finite values
  // Channels that stay in float have no error that a scale could lower.
  const at::Tensor salient = salient_inputs(input, options);
  const auto balance_of = [&](const LinearSpec& spec, const at::Tensor& weight) -> Balance {
    const at::Tensor part = without_channels(weight.to(input.gram.device()), salient);
    return {&spec, affine_options(options, spec.name, spec.in_features), counted_rows(config, spec, part)};
  };
  std::vector<Balance> balance;
  for (const LinearId id : group.balance) {
    const LinearSpec& spec = spec_of(block.layout.linears, id);
    if (!is_searched(spec, options)) continue;
    balance.push_back(balance_of(spec, std::get<FloatLinear>(block.weights.at(id)).weight));
    // Measured as the search does, on the same numbers.
    const bool whole =
        !salient.defined() && balance.back().weight.size(0) == spec.out_features && !ggml_type_of(options, spec.name);
    if (const auto known = block.untouched.find(id); whole && known != block.untouched.end())
      balance.back().rtn_error = known->second.rtn_error;
  }
  if (balance.empty() && !counts_experts(block, group)) return std::nullopt;
  if (options.search != nullptr) return found_scales(*options.search, group);
  const BlockObjective::ModuleError module_error =
      block.objective != nullptr ? block.objective->measure(group, block.weights) : BlockObjective::ModuleError();
  quant::ScaleSearch run(input, options.scale_search, group.tie);
  const auto for_each_balance = [&](const std::function<void(const Balance& linear, bool none_worse)>& work) {
    for (const Balance& linear : balance) work(linear, true);
    // Of experts some may lose: there are too many for a candidate that none does.
    for_each_expert(block, group, [&](const LinearSpec& spec, const at::Tensor& weight) { work(balance_of(spec, weight), false); });
  };
  for_each_balance([&](const Balance& linear, bool) { run.add_magnitude(linear.weight, linear.affine.group_size); });
  do {
    if (module_error) {
      run.add_error([&](const at::Tensor& scales) { return module_error(with_rounded(config, block.weights, balance, scales)); });
    } else {
      for_each_balance([&](const Balance& linear, bool none_worse) {
        run.add_error(linear.weight, linear.affine, none_worse, linear.rtn_error);
      });
    }
  } while (run.refine());
  if (options.ggml_types.empty() || module_error) return run.finish();
  quant::GgmlScaleChoice choice(input, run.finalists(kBlockCandidates));
  for_each_balance([&](const Balance& linear, bool none_worse) {
    choice.add_error(linear.weight, options.ggml_types.at(linear.spec->name), none_worse);
  });
  return choice.finish();
}

// Of a group, in multiplications: all candidates are measured on some rows of each linear, a few on all of them
// (quant/scale_search.h).
double search_cost(const BlockSearch& block, const ScalingGroup& group) {
  constexpr double kSampledRows = 64;
  constexpr double kOnAllRows = 5;
  const double candidates = 2.0 * block.options.scale_search.grid;
  double cost = 0;
  const auto add = [&](const LinearSpec& spec) {
    const auto rows = static_cast<double>(spec.out_features);
    const auto width = static_cast<double>(spec.in_features);
    cost += (candidates * std::min(rows, kSampledRows) + kOnAllRows * rows) * width * width;
  };
  for (const LinearId id : group.balance) add(spec_of(block.layout.linears, id));
  for (int64_t expert = 0; group.experts && expert < block.layout.experts; ++expert) {
    for (const LinearSpec& spec : models::expert_layout(block.config, block.layout.block, expert)) {
      if (spec.input == group.input) add(spec);
    }
  }
  return cost;
}

}  // namespace

const LinearSpec& spec_of(const std::vector<LinearSpec>& specs, LinearId id) {
  const auto it = std::find_if(specs.begin(), specs.end(), [&](const LinearSpec& spec) { return spec.id == id; });
  if (it == specs.end()) fail(ErrorKind::kInternal, "no linear {} in this block", static_cast<int>(id.slot));
  return *it;
}

std::vector<std::optional<quant::ScaleSearchResult>> search_groups(const BlockSearch& block,
                                                                   const std::vector<ScalingGroup>& groups, Ranks* ranks) {
  std::vector<double> costs;
  for (const ScalingGroup& group : groups) costs.push_back(search_cost(block, group));
  const std::vector<int> owners = share_by_cost(costs, ranks != nullptr ? ranks->size() : 1);
  std::vector<std::optional<quant::ScaleSearchResult>> found(groups.size());
  for (size_t i = 0; i < groups.size(); ++i) {
    check_cancelled();
    if (ranks != nullptr && owners[i] != ranks->rank()) continue;
    found[i] = search(block, groups[i]);
    return_free_memory();
  }
  for (size_t i = 0; ranks != nullptr && i < groups.size(); ++i) broadcast_found(found[i], owners[i], *ranks);
  return found;
}

}  // namespace salient::pipeline
