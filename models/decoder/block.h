// One decoder block: weights and forward pass. Quantization runs blocks alone, one at a time; Decoder strings them together.
//
//   h = x + o_proj(attention(rope(q_norm(q_proj(n1))), rope(k_norm(k_proj(n1))), v_proj(n1)))     n1 = input_layernorm(x)
//   y = h + down_proj(act(gate_proj(n2)) * up_proj(n2))                                           n2 = post_attention_layernorm(h)
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <map>

#include "models/decoder/architecture.h"
#include "models/decoder/linear.h"
#include "models/io/checkpoint.h"

namespace salient::models {

struct BlockWeights {
  std::array<Linear, kLinearSlots> linears;
  std::array<at::Tensor, kNormSlots> norms;  // [hidden_size] or [head_dim]

  Linear& at(LinearSlot slot) { return linears[static_cast<size_t>(slot)]; }
  const Linear& at(LinearSlot slot) const { return linears[static_cast<size_t>(slot)]; }
  at::Tensor& at(NormSlot slot) { return norms[static_cast<size_t>(slot)]; }
  const at::Tensor& at(NormSlot slot) const { return norms[static_cast<size_t>(slot)]; }
};

// Loads one block: float linears, or packed ones where the checkpoint has <module>.qweight/.qzeros/.scales (AutoAWQ GEMM). Errors:
// those of Checkpoint::load; corruption for packed tensors whose shapes do not fit; unsupported for a packed tensor of another
// format.
BlockWeights load_block(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, at::ScalarType dtype,
                        at::Device device);

// What all blocks of one forward pass share.
struct AttentionContext {
  at::Tensor cos;   // [batch or 1, 1, tokens, head_dim], dtype of the hidden states
  at::Tensor sin;   // the same
  at::Tensor mask;  // additive or bool [batch or 1, 1, tokens, past + tokens]; undefined = plain causal
  // `mask` with a sliding window applied, by window length, from add_window_masks(). Only a saving: a block that finds none makes
  // its own.
  std::map<int64_t, at::Tensor> window_masks;
};
// position_ids: int64 [batch or 1, tokens], on the device of the hidden states. Cosines are computed in float32, then converted.
AttentionContext make_attention_context(const DecoderConfig& config, const at::Tensor& position_ids, at::ScalarType dtype);

// Additive mask [1, 1, tokens, past + tokens], 0 or -inf, for several tokens after a past without padding.
at::Tensor make_causal_mask(int64_t tokens, int64_t past_length, at::ScalarType dtype, at::Device device);

// Additive mask [batch, 1, tokens, past + tokens] of a padded batch, 0 or -inf. real: bool [batch, past + tokens], true = a token,
// false = padding. Every position sees at least itself, so that rows of padding give finite numbers (which nobody uses).
at::Tensor make_padding_mask(const at::Tensor& real, int64_t tokens, at::ScalarType dtype);

// Prepares the masks of this config's sliding windows once for all blocks.
void add_window_masks(AttentionContext& context, const DecoderConfig& config, int64_t tokens, int64_t past_length);

// Keys and values of one block: [batch, kv_heads, capacity, head_dim], of which `length` are filled.
struct KvCacheLayer {
  at::Tensor keys;
  at::Tensor values;
};

// Called with the input of linears: slot, and x of shape [batch, tokens, features].
using BlockObserver = std::function<void(InputSlot slot, const at::Tensor& x)>;

// hidden: [batch, tokens, hidden_size] -> the same shape. With `cache`, this call's keys and values are written at `past_length`
// and attention sees past_length + tokens of it. Sliding windows are applied to the mask by the block itself.
at::Tensor block_forward(const DecoderConfig& config, const BlockWeights& weights, int64_t block, const at::Tensor& hidden,
                         const AttentionContext& context, KvCacheLayer* cache = nullptr, int64_t past_length = 0,
                         const BlockObserver& observer = {});

// x * weight / sqrt(mean(x^2) + eps) over the last dimension, normalized in float32 and multiplied in x's dtype, as transformers
// does.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace salient::models
