// From token ids to the first block's input, and from the last block's output to logits.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/decoder/decoder_config.h"
#include "models/decoder/linear.h"
#include "models/io/checkpoint.h"

namespace salient::models {

struct EmbeddingWeights {
  at::Tensor tokens;     // [vocab_size, hidden_size], in a dtype of its own
  at::Tensor positions;  // [learned_positions, hidden_size], or undefined
  Norm norm;             // BLOOM's
};

// A token table of 16 bits stays so where the decoder runs in float32 on the CPU: its rows are converted when they are looked up,
// which is exact. Else it is converted to `dtype`. `view_tokens`: the token table stays a view of the mapped file in its stored
// dtype (for a single lookup) instead of a converted copy.
EmbeddingWeights load_embedding(const Checkpoint& checkpoint, const DecoderConfig& config, at::ScalarType dtype, at::Device device,
                                bool view_tokens = false);

// ids: int64 [batch, tokens]; position_ids: int64 [batch or 1, tokens] -> [batch, tokens, hidden_size] in `dtype`.
at::Tensor embed(const DecoderConfig& config, const EmbeddingWeights& weights, const at::Tensor& ids,
                 const at::Tensor& position_ids, at::ScalarType dtype);

// The head; that of a tied model shares the token table. Weights that are stored in 16 bits stay so where the decoder runs in
// float32 on the CPU, and are multiplied with float32 inputs (FloatLinear); other float weights are converted to `dtype`. Errors:
// those of load_linear.
Linear load_head(const Checkpoint& checkpoint, const DecoderConfig& config, const EmbeddingWeights& embedding, at::ScalarType dtype,
                 at::Device device);

// The architecture's factor and soft-cap on the head's output.
at::Tensor scale_logits(const DecoderConfig& config, at::Tensor logits);

// The norm after the last block.
Norm load_final_norm(const Checkpoint& checkpoint, const DecoderConfig& config, at::ScalarType dtype, at::Device device);

}  // namespace salient::models
