// Which bits each module gets so that the mean stays within options.target_bits: what rounding a module costs, measured on the calibration tokens
// before anything is stored, and the knapsack of quant/bit_allocation.h over all modules.
//
// Of each linear, with the scales that the search finds at its own bits (specification and overrides):
//
//   sensitivity(bits)  tr(D G D^T) / tokens of rounding it to nearest: the mean squared error of its output, in the units of that output
//   importance         what a unit of that error does to the model's output. On a few of the calibration rows the module alone is rounded to
//                      kReferenceBits, what comes out of its block is carried through all later blocks in float, and the mean KL divergence of the
//                      next token's distribution from the float model's is measured: nats, divided by the module's error at those bits
//
// so that importance * sensitivity(bits) is in nats for every module, and their sum, which is minimized, the divergence of the whole model as far as
// errors are small and independent. Measures nearer to the module rank modules of different places badly: the relative change of the block's output,
// and of the last block's, gave a third of the gain on the bundled model, for in which direction the residual stream is moved counts more than how far.
//
// Errors at 2 bits are not small: the divergence of whole models grows by twice the factor that the errors do. They are chosen only where the target is
// below 3 (or an override says so).
//
// Modules that engines fuse get the same bits, and are rounded together in the measurement, each with an equal part of the divergence: q, k and v; gate
// and up; the two down-projections of latent attention; the parts of a linear attention's input; all experts of a block.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "calibration/token_blocks.h"
#include "models/io/checkpoint.h"
#include "pipeline/activation_file.h"
#include "pipeline/awq_linear.h"
#include "pipeline/awq_options.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

inline constexpr int kReferenceBits = 3;
inline constexpr int64_t kSampleTokens = 1024;  // in whole rows: that importance is measured on

struct BitPlanInputs {
  const models::Checkpoint& checkpoint;
  const models::DecoderConfig& config;
  const AwqOptions& options;  // target_bits > 0, scale_dtype as quantize_model sets it; a module whose override names bits keeps them
  const calibration::TokenBlocks& tokens;
  const CalibrationPass& pass;  // over `tokens`
  const StoredDtype& stored;
  std::filesystem::path scratch_folder;                // for hidden states and scratch_file()s; removed at the end
  std::function<void(ActivationFile& hidden)> embed;   // writes the first block's input
  std::vector<int> bit_choices = {2, 3, 4, 5, 6, 8};   // those that the format does not have are left out
  std::function<void(int64_t done, int64_t total)> on_progress;  // blocks; may be empty
};

struct PlannedModule {
  std::string name;
  int bits = 0;
  int64_t weights = 0;
  double importance = 0;  // nats for each unit of error
  std::vector<std::pair<int, double>> sensitivity;  // bits -> error, ascending; an error that is not finite is one that could not be measured
};

struct BitPlan {
  std::vector<PlannedModule> modules;  // every one that is rounded, by block
  double mean_bits = 0;                // of a weight
  double error = 0;                    // sum of importance * sensitivity at the chosen bits, nats
};

// Runs the float model once over all tokens and, over the few of kSampleTokens tokens, once for each module from its block on; one block at a time: memory as
// of quantize_model with the weights of one more block, and a piece of the head. Deterministic.
// Errors: invalid argument when target_bits lies outside of what the choices can reach; those of run_block_step.
BitPlan plan_bits(const BitPlanInputs& inputs);

// The bits anew, from what was measured: for another target. options.overrides and the format count as in plan_bits.
void choose_bits(BitPlan& plan, const models::DecoderConfig& config, const AwqOptions& options, const std::vector<int>& bit_choices);

// One for each module, by its whole name: to be appended to AwqOptions::overrides.
std::vector<ModuleOverride> bit_overrides(const BitPlan& plan);

// "bit_plan.json" in a work folder. What is loaded is what was saved to the last bit; nothing when there is none, when it is damaged or of another
// fingerprint (of everything that decides the plan).
void save_bit_plan(const std::filesystem::path& work_folder, const std::string& fingerprint, const BitPlan& plan);
std::optional<BitPlan> load_bit_plan(const std::filesystem::path& work_folder, const std::string& fingerprint);
bool is_bit_plan_file(const std::string& name);

}  // namespace salient::pipeline
