// Rows of different lengths in one forward pass, one after the other and without padding. A row may continue what a cache holds of
// it, or branch: several continuations of one text are a tree, whose common part is computed once.
//
// What a row gives depends on nothing else in the batch, to the bit, in float32 on the CPU: products of float32 weights give each
// row its own bits (float_product.h), those of other weights from kLeastRaggedTokens tokens on, which there always are, and each
// query's attention is computed in blocks whose bounds are fixed by its place in the row. Not so in 16 bits, and in a mixture whose
// experts, which read few tokens of a batch, have other weights: there it holds up to rounding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/decoder/decoder_config.h"

namespace salient::models {

struct KvCache;

// Fewer tokens are filled up with a row that nobody sees.
inline constexpr int64_t kLeastRaggedTokens = 16;
// Queries that attention takes at a time, from positions that it divides. A row with a slot may therefore be read in several calls,
// split at these positions, with the same result.
inline constexpr int64_t kQueryBlock = 32;

struct RaggedRow {
  int64_t tokens = 0;  // of this call
  int64_t slot = -1;   // the cache's row that holds what was read before, and takes the new keys and values; -1: nothing is kept
  int64_t past = 0;    // tokens in the slot
  // bool [tokens, tokens], on the CPU: visible[i][j] = token i sees token j. Undefined: each sees those before it and itself. Only
  // without a slot.
  at::Tensor visible;
};

struct RaggedBatch {
  at::Tensor ids;        // int64 [tokens of all rows]
  at::Tensor positions;  // int64, the same shape: the place in its text of each token, from 0, on the CPU
  std::vector<RaggedRow> rows;
  KvCache* cache = nullptr;         // of the rows with a slot; as Decoder::make_cache makes it, its `length` is not used
  const KvCache* prefix = nullptr;  // a cache of one row: `prefix_tokens` of it stand in front of every row without a slot
  int64_t prefix_tokens = 0;
  // int64: tokens of the batch whose final states are wanted, in this order; the last block's MLP runs for them alone. Undefined:
  // all.
  at::Tensor wanted;

  int64_t tokens() const { return ids.size(0); }
};

// One call of attention: `queries` tokens of a row, which see `keys` tokens, those before the row included.
struct RaggedBlock {
  size_t row = 0;
  int64_t begin = 0;  // in the batch
  int64_t queries = 0;
  int64_t keys = 0;
};

// Of one kind of layer: the additive mask of each block, [1, heads or 1, queries, keys]; undefined = plain causal.
struct RaggedMasks {
  int64_t window = 0;
  int64_t chunk = 0;
  std::vector<at::Tensor> of_block;
};

// What the attention of all blocks of the decoder shares.
struct RaggedLayout {
  const RaggedBatch* batch = nullptr;
  std::vector<RaggedBlock> blocks;
  std::vector<RaggedMasks> masks;

  const std::vector<at::Tensor>& masks_of(const LayerConfig& layer) const;
};
RaggedLayout make_ragged_layout(const DecoderConfig& config, const RaggedBatch& batch, at::ScalarType dtype, at::Device device);

}  // namespace salient::models
