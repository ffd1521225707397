// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are linear in a small latent vector that all heads
// share, the positional part of the keys is one vector for all heads. The cache holds the keys and values themselves: for
// evaluation, where many tokens are read at once, that costs less than making them anew from the latents in every call.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <vector>

#include "models/decoder/attention.h"

namespace salient::models {
namespace {

at::Tensor queries(const AttentionCall& call, const at::Tensor& x) {
  const BlockWeights& weights = call.weights;
  if (call.config.latent.q_lora_rank == 0) return forward(weights.at(LinearSlot::kQProj), x);
  const at::Tensor latent = normalize(weights.at(NormSlot::kQueryLatent), forward(weights.at(LinearSlot::kQAProj), x));
  call.observe(InputSlot::kQueryLatent, latent);
  return forward(weights.at(LinearSlot::kQBProj), latent);
}

// [batch, tokens, heads * dim] -> [batch, heads, tokens, dim]
at::Tensor by_head(const at::Tensor& x, int64_t dim) { return x.unflatten(-1, {-1, dim}).transpose(1, 2); }

}  // namespace

at::Tensor latent_attention(const AttentionCall& call, const at::Tensor& x) {
  const LatentAttentionConfig& latent = call.config.latent;
  const BlockWeights& weights = call.weights;
  const int64_t rope = call.layer().rope;
  const auto turn = [&](const at::Tensor& t) {
    return rope < 0 ? t
                    : rotate(t, call.context.rotary[static_cast<size_t>(rope)], call.config.ropes[static_cast<size_t>(rope)].pairs);
  };

  call.observe(InputSlot::kAttentionInput, x);
  const auto query = by_head(queries(call, x), latent.qk_nope_head_dim + latent.qk_rope_head_dim)
                         .split_with_sizes({latent.qk_nope_head_dim, latent.qk_rope_head_dim}, -1);

  const auto compressed =
      forward(weights.at(LinearSlot::kKvAProj), x).split_with_sizes({latent.kv_lora_rank, latent.qk_rope_head_dim}, -1);
  const at::Tensor kv_latent = normalize(weights.at(NormSlot::kKvLatent), compressed[0]);
  call.observe(InputSlot::kKvLatent, kv_latent);
  const auto key_value = by_head(forward(weights.at(LinearSlot::kKvBProj), kv_latent), latent.qk_nope_head_dim + latent.v_head_dim)
                             .split_with_sizes({latent.qk_nope_head_dim, latent.v_head_dim}, -1);
  const at::Tensor key_place = turn(compressed[1].unsqueeze(1)).expand({-1, call.config.num_attention_heads, -1, -1});
  const at::Tensor keys = at::cat({key_value[0], key_place}, -1);
  const at::Tensor output = attend_with_cache(call, at::cat({query[0], turn(query[1])}, -1), keys, key_value[1]);
  call.observe(InputSlot::kAttentionOutput, output);
  return forward(weights.at(LinearSlot::kOProj), output);
}

}  // namespace salient::models
