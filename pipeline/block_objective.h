// The error of a scale candidate as AutoAWQ and llm-compressor measure it: the mean squared change of the output of the module that
// reads the scaled input, run with the rounded weights on the calibration tokens.
//
//   norm -> q_proj, k_proj, v_proj    attention, after o_proj
//   norm -> gate_proj, up_proj        the MLP, after down_proj
//   norm -> both (parallel residual)  the sum of the two, which is what the block adds. AutoAWQ runs the whole layer there, its norm twice
//
// However few linears read a norm's output: a fused qkv_proj is measured as three. Any other linear is a module of its own, for
// which the Gram matrix gives the same error without tokens. Mixtures of experts are not run: one candidate would need every expert
// of the block.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>

#include "models/decoder/block_weights.h"
#include "models/decoder/scaling_groups.h"
#include "pipeline/activation_file.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

enum class GroupModule : uint8_t { kLinear, kAttention, kMlp, kAttentionAndMlp, kMixture };
GroupModule module_of(const models::ScalingGroup& group);

class BlockObjective {
 public:
  // `config` and `pass` must outlive it. What modules read and put out lies in files "<prefix>attention_input.bin",
  // "<prefix>dense_mlp_input.bin" and
  // "<prefix>module_output.bin" until this is destroyed: hidden_size float32 values for each token and file.
  BlockObjective(const models::DecoderConfig& config, int64_t block, const CalibrationPass& pass, std::filesystem::path prefix);
  ~BlockObjective();
  BlockObjective(const BlockObjective&) = delete;
  BlockObjective& operator=(const BlockObjective&) = delete;

  // Keeps x, [batch, tokens, features], where a module reads it. Errors: io.
  void keep(models::InputId input, const at::Tensor& x, const CalibrationPass::Batch& batch);

  // Of weights in which the group's balance linears were changed: the squared change of the module's output, summed over its
  // channels, mean over the tokens that statistics count. Tokens whose output with the untouched weights is NaN or infinite are
  // left out; the result is not finite where only the changed weights give such an output. float32 products, float64 sums.
  using ModuleError = std::function<double(const models::BlockWeights& changed)>;
  // Empty for kLinear and kMixture. `weights`: untouched, on the CPU. Runs the module once; valid until the next call.
  ModuleError measure(const models::ScalingGroup& group, const models::BlockWeights& weights);

 private:
  std::filesystem::path path(const char* name) const;
  at::Tensor run(GroupModule module, const models::BlockWeights& weights, const CalibrationPass::Batch& batch) const;
  double error(GroupModule module, const models::BlockWeights& changed) const;

  const models::DecoderConfig& config_;
  int64_t block_;
  const CalibrationPass& pass_;
  std::filesystem::path prefix_;
  std::map<models::InputSlot, ActivationFile> inputs_;
  std::optional<ActivationFile> output_;
};

}  // namespace salient::pipeline
