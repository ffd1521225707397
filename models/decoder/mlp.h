// The MLPs of a block: gated or plain, one expert, shared expert.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include "models/decoder/attention.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

// What feeds down_proj: act(gate_proj(x)) * up_proj(x), or act(up_proj(x)), divided by activation_scales where there are any. x:
// [..., hidden_size] ->
// [..., intermediate].
at::Tensor mlp_hidden(const DecoderConfig& config, const MlpWeights& weights, const at::Tensor& x);
// down_proj(mlp_hidden(x)). `mlp`: for the observer.
at::Tensor mlp_forward(const DecoderConfig& config, const MlpWeights& weights, int64_t mlp, const at::Tensor& x,
                       const BlockObserver& observer);

// silu(gate) * up of n float32 numbers, in this thread: what mlp_hidden computes for float32 on the CPU. `to` may be one of the
// two.
void silu_product(const float* gate, const float* up, int64_t n, float* to);
bool is_silu(std::string_view hidden_act);

// Names as config.json spells them. Errors of the first: unsupported, with the list.
void check_activation(std::string_view hidden_act, const std::string& where);
at::Tensor activate(std::string_view hidden_act, const at::Tensor& x);
// c such that act(x / s) = act(x) / s^c for every s > 0: 1 for relu, 2 for its square, 0 where there is none.
int activation_homogeneity(std::string_view hidden_act);

}  // namespace salient::models
