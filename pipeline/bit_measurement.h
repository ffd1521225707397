// What rounding each module costs the model, measured on the calibration tokens before anything is stored. Of each linear, with the
// scales that the search finds at its own bits (specification and overrides):
//
//   sensitivity(bits)  tr(D G D^T) / tokens of rounding it to nearest: the mean squared error of its output, in the units of that
//                      output
//   importance         what a unit of that error does to the model's output. On a few of the calibration rows the module alone is
//                      rounded to kReferenceBits, what comes out of its block is carried through all later blocks in float, and
//                      the mean KL divergence of the next token's distribution from the float model's is measured: nats, divided
//                      by the module's error at those bits
//
// so that importance * sensitivity(bits) is in nats for every module, and their sum the divergence of the whole model as far as
// errors are small and independent. Measures nearer to the module rank modules of different places badly: the relative change of
// the block's output, and of the last block's, gave a third of the gain on the bundled model, for in which direction the residual
// stream is moved counts more than how far.
//
// Modules that engines fuse are rounded together, each with an equal part of the divergence: q, k and v; gate and up; the two
// down-projections of latent attention; the parts of a linear attention's input; all experts of a block.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "calibration/token_blocks.h"
#include "models/decoder/block_layout.h"
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
  // target_bits > 0, scale_dtype as quantize_model sets it; a module whose override names bits keeps them
  const AwqOptions& options;
  const calibration::TokenBlocks& tokens;
  const CalibrationPass& pass;  // over `tokens`
  const StoredDtype& stored;
  std::filesystem::path scratch_folder;                          // for hidden states and scratch_file()s; removed at the end
  std::function<void(ActivationFile& hidden)> embed;             // writes the first block's input
  std::vector<int> bit_choices = {2, 3, 4, 5, 6, 8};             // those that the format does not have are left out
  std::function<void(int64_t done, int64_t total)> on_progress;  // blocks; may be empty
};

struct PlannedModule {
  std::string name;
  int bits = 0;  // 0 = not chosen yet
  int64_t weights = 0;
  double importance = 0;  // nats for each unit of error
  std::vector<std::pair<int, double>>
      sensitivity;  // bits -> error, ascending; an error that is not finite is one that could not be measured
};

// What of `choices` a module may have: those of the format, or what its override names. Errors: invalid argument when nothing is
// left.
std::vector<int> allowed_bits(const AwqOptions& options, const std::vector<int>& choices, const std::string& module);

// Linears of one block that engines run as one, by a number of their own below kFusedParts; -1 for one that is run alone.
int fused_part(const models::LinearId& id);
inline constexpr int kFusedParts = 7;

// Tokens of the sample whose distributions are compared at a time; kLogitsCopies tensors [tokens, vocab_size] of float32 are in
// memory then.
int64_t logits_tokens(const models::DecoderConfig& config);
inline constexpr int64_t kLogitsCopies = 5;

// Every module that is rounded, by block. Runs the float model once over all tokens and, over the few of kSampleTokens tokens, once
// for each module from its block on; one block at a time: memory as of quantize_model with the weights of one more block, and a
// piece of the head. Deterministic. Errors: those of run_block_step.
std::vector<PlannedModule> measure_modules(const BitPlanInputs& inputs);

}  // namespace salient::pipeline
