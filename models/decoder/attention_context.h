// What all blocks of one forward pass share: rotary tables and masks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/decoder/ragged_batch.h"

namespace salient::models {

struct AttentionContext {
  std::vector<RotaryTable> rotary;  // one for each of DecoderConfig::ropes
  // Additive [batch or 1, heads or 1, tokens, past + tokens], 0 or -inf plus position biases; undefined = plain causal.
  at::Tensor mask;
  // `mask` with a sliding window applied, by window length. Only a saving: a block that finds none makes its own.
  std::map<int64_t, at::Tensor> window_masks;
  std::map<int64_t, at::Tensor> chunk_masks;  // `mask` within chunks, by their length, for those that are shorter than the context
  at::Tensor query_growth;                    // factor of the queries [batch or 1, 1, tokens, 1], or undefined
  // bool [batch, tokens] of this call: false = padding. Undefined = all real. Only linear attention needs it.
  at::Tensor real;
  // Of a batch without padding, whose tokens are one row here: what each of its rows sees. Masks and `real` are not used then.
  const RaggedLayout* ragged = nullptr;
};

// For `tokens` new positions after `past_length`. position_ids: int64 [batch or 1, tokens], on the device of the hidden states.
// `real`: bool [batch, past + tokens], true = a token, false = padding; undefined = all real. Rows of padding see at least
// themselves, so that they give finite numbers (which nobody uses).
AttentionContext make_attention_context(const DecoderConfig& config, const at::Tensor& position_ids, int64_t past_length,
                                        const at::Tensor& real, at::ScalarType dtype);

// Only what follows from the positions, without a mask.
AttentionContext make_position_context(const DecoderConfig& config, const at::Tensor& position_ids, at::ScalarType dtype);

// The mask of one block, and whether attention should be told "causal" instead.
struct BlockMask {
  at::Tensor mask;  // additive, or undefined
  bool causal = false;
};
BlockMask select_mask(const AttentionContext& context, const LayerConfig& layer, int64_t tokens, int64_t past_length,
                      at::ScalarType dtype, at::Device device);

// Additive [1, 1, tokens, past + tokens].
at::Tensor causal_mask(int64_t tokens, int64_t past_length, at::ScalarType dtype, at::Device device);

// true -> 0, false -> -inf
at::Tensor additive_mask(const at::Tensor& visible, at::ScalarType dtype);
// Position biases of ALiBi, [rows, heads, 1, keys], of key_positions: int64 [rows, keys]: a slope times the key's position.
// Distances to the query differ from that by a constant a row, which softmax does not see.
at::Tensor alibi_bias(const DecoderConfig& config, const at::Tensor& key_positions, at::ScalarType dtype);

}  // namespace salient::models
