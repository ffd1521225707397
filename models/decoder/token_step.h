// One new token for each of a few rows through all blocks of a decoder: generation.
//
// The blocks' general way (models/decoder/block.h) is a sequence of operators, each with a parallel region, memory and checks of
// its own; for one token that takes as long as reading the weights. Here one team of threads goes through all blocks: it meets five
// times a block, products that read the same input are one (q, k, v; gate, up), norms and rounding to 8 bits are done by each
// thread for itself, and memory is asked for only when a cache is new or has grown. The numbers are the same, bit for bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/decoder/attention.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/row_product.h"

namespace salient::models {

// What a step writes between its products. Kept with a cache from token to token.
struct TokenStepMemory;

class TokenStep {
 public:
  static constexpr int64_t kMaxRows = RowProduct::kMaxRows;

  // nullptr where some block has a part that this way lacks, and for other types than float32 on the CPU. It does have: standard
  // attention with rotary embeddings in halves, RMS norms before both branches and of each head, a dense MLP with SiLU, and linears
  // that RowProduct takes. `why_not`: is set to what is lacking where the result is nullptr: "model.layers.3: mlp.down_proj is in
  // float32".
  static std::shared_ptr<const TokenStep> make(const DecoderConfig& config, const std::vector<BlockWeights>& blocks,
                                               std::vector<KvScheme> kv, std::string* why_not = nullptr);

  // hidden: float32 [rows, 1, hidden_size], contiguous, rows <= kMaxRows: the embedded tokens, changed into the last block's
  // output. Writes keys and values at `past_length` of the caches. `context`: made for one token. `memory`: made where there is
  // none, too little or that of another step. Errors: internal for a cache of another shape.
  void run(const AttentionContext& context, int64_t past_length, std::vector<KvCacheLayer>& caches,
           std::shared_ptr<TokenStepMemory>& memory, at::Tensor& hidden) const;

 private:
  friend class TokenStepRun;

  struct Block {
    Norm attention_input, query, key, mlp_input;
    std::vector<RowProduct> qkv;      // q, k, v, or one for all
    std::vector<RowProduct> output;   // one
    std::vector<RowProduct> gate_up;  // gate, up, or one for both
    std::vector<RowProduct> down;     // one
  };
  static std::optional<Block> plan(const DecoderConfig& config, const LayerConfig& layer, const BlockWeights& weights,
                                   std::string& why_not);

  explicit TokenStep(const DecoderConfig& config) : config_(config) {}

  DecoderConfig config_;
  std::vector<Block> blocks_;
  std::vector<KvScheme> kv_;
};

}  // namespace salient::models
