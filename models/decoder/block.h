// One decoder block: weights and forward pass. Quantization runs blocks alone, one at a time; Decoder strings them together.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>

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

// Loads one block: float linears, or packed ones where the checkpoint has <module>.qweight/.qzeros/.scales (AutoAWQ GEMM).
BlockWeights load_block(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, at::ScalarType dtype, at::Device device);

// What all blocks of one forward pass share.
struct AttentionContext {
  at::Tensor cos;   // [batch or 1, 1, tokens, head_dim], dtype of the hidden states
  at::Tensor sin;   // the same
  at::Tensor mask;  // additive or bool [batch or 1, 1, tokens, past + tokens]; undefined = plain causal without past
};
// position_ids: int64 [batch or 1, tokens].
AttentionContext make_attention_context(const DecoderConfig& config, const at::Tensor& position_ids, at::ScalarType dtype);

// Keys and values of one block: [batch, kv_heads, capacity, head_dim], of which `length` are filled.
struct KvCacheLayer {
  at::Tensor keys;
  at::Tensor values;
};

// Called with the input of linears: slot, and x of shape [batch, tokens, features].
using BlockObserver = std::function<void(InputSlot slot, const at::Tensor& x)>;

// hidden: [batch, tokens, hidden_size] -> the same shape. With `cache`, this call's keys and values are written at `past_length` and
// attention sees past_length + tokens of it. Sliding windows are applied to the mask by the block itself.
at::Tensor block_forward(const DecoderConfig& config, const BlockWeights& weights, int64_t block, const at::Tensor& hidden,
                         const AttentionContext& context, KvCacheLayer* cache = nullptr, int64_t past_length = 0,
                         const BlockObserver& observer = {});

}  // namespace salient::models
