#include "pipeline/bit_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "quant/bit_allocation.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;

// What a sum of errors says too little of: 2 bits, unless the target needs them.
bool is_too_coarse(int bits, double target) { return bits == 2 && target >= 3; }

// Module -> number of those that share its bits, for every linear of the model.
std::map<std::string, int64_t> fused_modules(const models::DecoderConfig& config) {
  std::map<std::string, int64_t> fused;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const auto note = [&](const LinearSpec& spec) {
      if (const int part = fused_part(spec.id); part >= 0) fused[spec.name] = block * kFusedParts + part;
    };
    const models::BlockLayout layout = models::block_layout(config, block);
    for (const LinearSpec& spec : layout.linears) note(spec);
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const LinearSpec& spec : models::expert_layout(config, block, expert)) note(spec);
    }
  }
  return fused;
}

}  // namespace

BitPlan plan_bits(const BitPlanInputs& inputs) {
  BitPlan plan{measure_modules(inputs), 0, 0};
  choose_bits(plan, inputs.config, inputs.options, inputs.bit_choices);
  return plan;
}

void choose_bits(BitPlan& plan, const models::DecoderConfig& config, const AwqOptions& options,
                 const std::vector<int>& bit_choices) {
  const std::map<std::string, int64_t> fused = fused_modules(config);
  std::vector<quant::BitCandidate> candidates;
  for (const PlannedModule& module : plan.modules) {
    quant::BitCandidate candidate{module.name, module.weights, {}, module.importance, -1};
    if (const auto it = fused.find(module.name); it != fused.end()) candidate.shared = it->second;
    const std::vector<int> allowed = allowed_bits(options, bit_choices, module.name);
    for (const auto& [bits, error] : module.sensitivity) {
      const bool usable = std::find(allowed.begin(), allowed.end(), bits) != allowed.end() &&
                          (allowed.size() == 1 || !is_too_coarse(bits, options.target_bits));
      if (usable) candidate.choices.push_back({bits, error});
    }
    // Where calibration says nothing, the module gets the target, or a little more.
    const bool measured =
        std::isfinite(module.importance) && std::all_of(candidate.choices.begin(), candidate.choices.end(),
                                                        [](const auto& choice) { return std::isfinite(choice.error); });
    if (!measured) {
      const auto it = std::find_if(allowed.begin(), allowed.end(), [&](int bits) { return bits >= options.target_bits; });
      candidate.choices = {{it == allowed.end() ? allowed.back() : *it, 0.0}};
      candidate.importance = 0;
    }
    candidates.push_back(std::move(candidate));
  }
  const quant::BitAllocation found = quant::allocate_bits(candidates, options.target_bits);
  for (size_t i = 0; i < plan.modules.size(); ++i) plan.modules[i].bits = found.bits[i];
  plan.mean_bits = found.mean_bits;
  plan.error = found.error;
}

}  // namespace salient::pipeline
