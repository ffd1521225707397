// A float decoder that does not hold its weights: each pass reads block after block from the mapped files, and only as many stay
// loaded as fit into a budget; of a mixture only the experts that tokens are sent to are read, one at a time. Slower than Decoder,
// in memory that does not grow with the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "models/decoder/block.h"
#include "models/decoder/embedding.h"
#include "models/decoder/streamed_head.h"
#include "models/io/checkpoint.h"

namespace salient::models {

class StreamedDecoder {
 public:
  // Float checkpoints only. `checkpoint` and `config` must outlive the decoder. `kept_bytes`: of float32 weights that may stay in
  // memory beside the block that is running, the head first.
  StreamedDecoder(const Checkpoint& checkpoint, const DecoderConfig& config, uint64_t kept_bytes);
  // What stays loaded when there is room for everything that may: the head and all blocks, experts excluded.
  static uint64_t most_kept_bytes(const DecoderConfig& config);

  // Starts `rows` empty sequences of up to `capacity` tokens.
  void start(int64_t rows, int64_t capacity);
  // Appends ids (int64 [rows, tokens]) and returns the logits after the last of them, float32 [rows, vocab_size].
  at::Tensor next_logits(const at::Tensor& ids);

 private:
  at::Tensor run_block(int64_t block, const AttentionContext& context, const at::Tensor& hidden);
  at::Tensor run_mixture(const AttentionCall& call, const at::Tensor& hidden) const;

  const Checkpoint& checkpoint_;
  const DecoderConfig& config_;
  uint64_t kept_bytes_;  // left of the budget
  EmbeddingWeights embedding_;
  StreamedHead head_;
  std::vector<std::optional<BlockWeights>> kept_;
  std::vector<KvCacheLayer> cache_;
  int64_t length_ = 0;
};

}  // namespace salient::models
