#include "models/decoder/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "common/cancellation.h"
#include "models/decoder/mlp.h"
#include "models/decoder/router.h"

namespace salient::models {
namespace {

at::Tensor add_residual(const DecoderConfig& config, const at::Tensor& residual, const at::Tensor& branch) {
  return config.residual_multiplier == 1.0 ? residual + branch : residual + branch * config.residual_multiplier;
}

// With a parallel residual and no norm of its own, the MLP reads what the attention does, which is observed there.
void observe_mlp_input(const AttentionCall& call, const at::Tensor& mlp_input) {
  const bool shared_norm = call.config.parallel_residual && !call.weights.at(NormSlot::kMlpInput).present;
  if (!shared_norm) call.observe(InputSlot::kMlpInput, mlp_input);
}

}  // namespace

AttentionHalf attention_half(const AttentionCall& call, const at::Tensor& hidden) {
  check_cancelled();
  const at::NoGradGuard no_grad;
  const BlockWeights& weights = call.weights;
  const at::Tensor attention_input = normalize(weights.at(NormSlot::kAttentionInput), hidden);
  const at::Tensor attention = normalize(weights.at(NormSlot::kAttentionOutput), attention_forward(call, attention_input));
  const Norm& mlp_norm = weights.at(NormSlot::kMlpInput);
  const bool from_norm = call.config.residual_from_norm;
  AttentionHalf half;
  half.residual = add_residual(call.config, from_norm ? attention_input : hidden, attention);
  if (call.config.parallel_residual) {
    half.mlp_input = mlp_norm.present ? normalize(mlp_norm, hidden) : attention_input;
  } else {
    half.mlp_input = normalize(mlp_norm, half.residual);
    if (from_norm) half.residual = half.mlp_input;
  }
  return half;
}

void observe_mlp(const AttentionCall& call, const at::Tensor& mlp_input) {
  const at::NoGradGuard no_grad;
  observe_mlp_input(call, mlp_input);
  call.observe(InputSlot::kMlpHidden, mlp_hidden(call.config, call.weights.mlp, mlp_input));
}

at::Tensor mlp_half(const AttentionCall& call, const at::Tensor& mlp_input) {
  const at::NoGradGuard no_grad;
  observe_mlp_input(call, mlp_input);
  if (call.layer().moe) return mixture_forward(call.config, call.weights, mlp_input, call.observer);
  return mlp_forward(call.config, call.weights.mlp, kDenseMlp, mlp_input, call.observer);
}

at::Tensor finish_block(const AttentionCall& call, const at::Tensor& residual, const at::Tensor& mlp_output) {
  const at::NoGradGuard no_grad;
  const at::Tensor output = add_residual(call.config, residual, normalize(call.weights.at(NormSlot::kMlpOutput), mlp_output));
  const at::Tensor& scale = call.weights.at(ParameterSlot::kOutputScale);
  return scale.defined() ? output * scale.to(output.scalar_type()) : output;
}

at::Tensor block_forward(const AttentionCall& call, const at::Tensor& hidden) {
  const AttentionHalf half = attention_half(call, hidden);
  return finish_block(call, half.residual, mlp_half(call, half.mlp_input));
}

}  // namespace salient::models
