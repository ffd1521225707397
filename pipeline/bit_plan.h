// Which bits each module gets so that the mean stays within options.target_bits: what rounding a module costs (bit_measurement.h),
// and the knapsack of quant/bit_allocation.h over all modules, in which the sum of importance * sensitivity is minimized. Modules
// that engines fuse get the same bits.
//
// Errors at 2 bits are not small: the divergence of whole models grows by twice the factor that the errors do. They are chosen only
// where the target is below 3 (or an override says so).
#pragma once

#include <vector>

#include "pipeline/bit_measurement.h"

namespace salient::pipeline {

struct BitPlan {
  std::vector<PlannedModule> modules;  // every one that is rounded, by block
  double mean_bits = 0;                // of a weight
  double error = 0;                    // sum of importance * sensitivity at the chosen bits, nats
};

// measure_modules, then choose_bits. Errors: theirs.
BitPlan plan_bits(const BitPlanInputs& inputs);

// The bits anew, from what was measured: for another target. options.overrides and the format count as in plan_bits. Errors:
// invalid argument when target_bits lies outside of what the choices can reach.
void choose_bits(BitPlan& plan, const models::DecoderConfig& config, const AwqOptions& options,
                 const std::vector<int>& bit_choices);

}  // namespace salient::pipeline
