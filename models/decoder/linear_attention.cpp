// Linear attention of Qwen3-Next and Qwen3.5: a short causal convolution, then the gated delta rule, then a gated norm.
//
// Sizes below: K = key heads, V = value heads (a multiple of K: value heads share the query and key of key head v / (V / K)),
// channels = 2 * K * key_head_dim + V * value_head_dim.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "models/decoder/attention.h"
#include "models/decoder/delta_rule.h"
#include "models/decoder/mlp.h"
#include "quant/fixed_parts.h"

namespace salient::models {
namespace {

struct Projections {
  at::Tensor qkv;    // [batch, tokens, channels]: all queries, all keys, all values
  at::Tensor gate;   // [batch, tokens, V, value_head_dim]
  at::Tensor rate;   // [batch, tokens, V], before the sigmoid
  at::Tensor decay;  // [batch, tokens, V], before its bias
};

// Rows of in_proj_qkvz come key head by key head: its query, its key, its values, their gates. Those of in_proj_ba: its rates, its
// decays.
Projections split_interleaved(const LinearAttentionConfig& linear, const at::Tensor& qkvz, const at::Tensor& ba) {
  const int64_t batch = qkvz.size(0);
  const int64_t tokens = qkvz.size(1);
  const int64_t share = linear.num_value_heads / linear.num_key_heads;
  const int64_t values = share * linear.value_head_dim;
  const auto parts = qkvz.view({batch, tokens, linear.num_key_heads, -1})
                         .split_with_sizes({linear.key_head_dim, linear.key_head_dim, values, values}, -1);
  const auto steering = ba.view({batch, tokens, linear.num_key_heads, 2 * share}).split_with_sizes({share, share}, -1);
  return {at::cat({parts[0].flatten(2), parts[1].flatten(2), parts[2].flatten(2)}, -1),
          parts[3].reshape({batch, tokens, linear.num_value_heads, linear.value_head_dim}), steering[0].flatten(2),
          steering[1].flatten(2)};
}

Projections project(const AttentionCall& call, const at::Tensor& x) {
  const LinearAttentionConfig& linear = call.config.linear_attention;
  const BlockWeights& weights = call.weights;
  if (has_weight(weights.at(LinearSlot::kInProjQkvz))) {
    return split_interleaved(linear, forward(weights.at(LinearSlot::kInProjQkvz), x),
                             forward(weights.at(LinearSlot::kInProjBa), x));
  }
  return {forward(weights.at(LinearSlot::kInProjQkv), x),
          forward(weights.at(LinearSlot::kInProjZ), x).view({x.size(0), x.size(1), linear.num_value_heads, linear.value_head_dim}),
          forward(weights.at(LinearSlot::kInProjB), x), forward(weights.at(LinearSlot::kInProjA), x)};
}

// Every channel by itself: y_t = sum over i of w_i x_{t - width + 1 + i}, then the activation. Summed in float32. x: [batch,
// tokens, channels].
at::Tensor convolve(const AttentionCall& call, const at::Tensor& x) {
  const int64_t tokens = x.size(1);
  const int64_t width = call.config.linear_attention.convolution;
  const at::Tensor weight = call.weights.at(ParameterSlot::kConvolution).to(at::kFloat).view({x.size(2), width});
  const bool continued = call.cache != nullptr && call.past_length > 0;
  const at::Tensor past =
      continued ? call.cache->convolution.transpose(1, 2) : at::zeros({x.size(0), width, x.size(2)}, x.options());
  const at::Tensor seen = at::cat({past, x}, 1);
  if (call.cache != nullptr) call.cache->convolution = seen.narrow(1, tokens, width).transpose(1, 2).contiguous();

  at::Tensor sum = seen.narrow(1, 1, tokens) * weight.select(1, 0);
  for (int64_t i = 1; i < width; ++i) sum.addcmul_(seen.narrow(1, 1 + i, tokens), weight.select(1, i));
  return activate(call.config.hidden_act, sum.to(x.scalar_type()));
}

at::Tensor unit_length(const at::Tensor& x) { return x * at::rsqrt(x.square().sum(-1, /*keepdim=*/true) + 1e-6); }

// [batch, tokens, heads * dim] -> float32 [batch, `repeat` * heads, tokens, dim]
at::Tensor by_head(const at::Tensor& x, int64_t dim, int64_t repeat) {
  const at::Tensor heads = x.unflatten(-1, {-1, dim}).transpose(1, 2).to(at::kFloat);
  return (repeat == 1 ? heads : heads.repeat_interleave(repeat, 1)).contiguous();
}

DeltaRuleInput rule_input(const AttentionCall& call, const Projections& projections, const at::Tensor& qkv) {
  const LinearAttentionConfig& linear = call.config.linear_attention;
  const int64_t keys = linear.num_key_heads * linear.key_head_dim;
  const int64_t values = linear.num_value_heads * linear.value_head_dim;
  const int64_t share = linear.num_value_heads / linear.num_key_heads;
  const auto parts = qkv.split_with_sizes({keys, keys, values}, -1);
  const at::Tensor speed = at::exp(call.weights.at(ParameterSlot::kDecayLog).to(at::kFloat));
  const at::Tensor decay =
      quant::elementwise(projections.decay.to(at::kFloat) + call.weights.at(ParameterSlot::kDecayBias).to(at::kFloat),
                         [](const at::Tensor& x) { return at::softplus(x); });
  DeltaRuleInput input;
  input.query =
      unit_length(by_head(parts[0], linear.key_head_dim, share)) * (1.0 / std::sqrt(static_cast<double>(linear.key_head_dim)));
  input.key = unit_length(by_head(parts[1], linear.key_head_dim, share));
  input.value = by_head(parts[2], linear.value_head_dim, 1);
  input.log_decay = (-speed * decay).transpose(1, 2).contiguous();
  input.rate = quant::elementwise(projections.rate, at::sigmoid).to(at::kFloat).transpose(1, 2).contiguous();
  return input;
}

}  // namespace

at::Tensor linear_attention(const AttentionCall& call, const at::Tensor& hidden) {
  // Padding must not reach the memory: without an input it has neither key nor value.
  const at::Tensor& real = call.context.real;
  const at::Tensor x = real.defined() ? at::where(real.unsqueeze(-1), hidden, 0.0) : hidden;
  call.observe(InputSlot::kAttentionInput, x);

  const Projections projections = project(call, x);
  const DeltaRuleInput input = rule_input(call, projections, convolve(call, projections.qkv));
  at::Tensor state;
  if (call.cache != nullptr && call.past_length > 0) state = call.cache->recurrent;
  const at::Tensor read = x.size(1) == 1 ? delta_rule_step(input, state) : delta_rule_chunks(input, state);
  if (call.cache != nullptr) call.cache->recurrent = state;

  const at::Tensor normed = normalize(call.weights.at(NormSlot::kLinearAttention), read.transpose(1, 2).to(x.scalar_type()));
  const at::Tensor output = (normed * quant::elementwise(projections.gate.to(at::kFloat), at::silu)).to(x.scalar_type()).flatten(2);
  call.observe(InputSlot::kAttentionOutput, output);
  return forward(call.weights.at(LinearSlot::kOProj), output);
}

}  // namespace salient::models
