// The gated delta rule (Yang et al., arXiv 2412.06464): linear attention whose memory of all past tokens is one matrix for each
// head.
//
//   u_t = rate_t (v_t - exp(g_t) S_{t-1}^T k_t)     what the memory gets wrong about v_t
//   S_t = exp(g_t) S_{t-1} + k_t u_t^T
//   o_t = S_t^T q_t
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace salient::models {

struct DeltaRuleInput {
  at::Tensor query;      // float32 [batch, heads, tokens, key_dim], already scaled
  at::Tensor key;        // the same, of length 1 or less
  at::Tensor value;      // float32 [batch, heads, tokens, value_dim]
  at::Tensor log_decay;  // g, float32 [batch, heads, tokens], 0 or less
  at::Tensor rate;       // float32 [batch, heads, tokens], 0 to 1
};

// Each returns o, float32 [batch, heads, tokens, value_dim], and replaces `state`, float32 [batch, heads, key_dim, value_dim];
// undefined stands for an empty memory.

// Any number of tokens, `chunk` at a time: within a chunk the u_t solve a triangular system, so that all work is matrix products.
at::Tensor delta_rule_chunks(const DeltaRuleInput& input, at::Tensor& state, int64_t chunk = 64);
// One token, by the formulas above.
at::Tensor delta_rule_step(const DeltaRuleInput& input, at::Tensor& state);

}  // namespace salient::models
