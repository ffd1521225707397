// One decoder block: quantization runs blocks alone, one at a time; Decoder strings them together.
//
//   a = norm_attention_output(attention(norm_attention_input(x)))
//   h = x + residual_multiplier * a
//   y = h + residual_multiplier * norm_mlp_output(mlp(norm_mlp_input(h)))
//
// where norms that an architecture lacks are left out. With a parallel residual the MLP reads norm_mlp_input(x), or, without such a
// norm, what attention reads. The two halves can be run apart: between them experts may be loaded a few at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/decoder/attention.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

struct AttentionHalf {
  at::Tensor residual;   // what the MLP's output is added to
  at::Tensor mlp_input;  // normalized
};
AttentionHalf attention_half(const AttentionCall& call, const at::Tensor& hidden);
// Dense MLP, or a mixture whose experts are in memory. Observes kMlpInput (unless it is the attention's) and kMlpHidden.
at::Tensor mlp_half(const AttentionCall& call, const at::Tensor& mlp_input);
// Observes what a dense MLP's linears read, without the last of them.
void observe_mlp(const AttentionCall& call, const at::Tensor& mlp_input);
at::Tensor finish_block(const AttentionCall& call, const at::Tensor& residual, const at::Tensor& mlp_output);

// hidden: [batch, tokens, hidden_size] -> the same shape.
at::Tensor block_forward(const AttentionCall& call, const at::Tensor& hidden);

}  // namespace salient::models
