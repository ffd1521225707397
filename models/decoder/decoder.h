// A whole decoder for evaluation and generation: embedding, blocks, final norm, head; in float or from packed weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/decoder/block.h"

namespace salient::models {

struct DecoderOptions {
  at::ScalarType dtype = at::kFloat;  // float32 or bfloat16: of activations and float weights
  at::Device device = at::kCPU;
};

// Keys and values of all blocks. Copies are explicit (tensors are shared when a KvCache value is copied).
struct KvCache {
  std::vector<KvCacheLayer> layers;
  int64_t length = 0;
  int64_t capacity = 0;
};

class Decoder {
 public:
  // Errors: those of Checkpoint::load; unsupported for a quantization format that cannot be run.
  static Decoder load(const Checkpoint& checkpoint, const DecoderOptions& options);

  const DecoderConfig& config() const { return config_; }
  const DecoderOptions& options() const { return options_; }

  KvCache make_cache(int64_t batch, int64_t capacity) const;

  // ids: int64 [batch, tokens] -> final hidden states after the last norm, [batch, tokens, hidden_size].
  // `attention_mask`: bool [batch, past + tokens], true = a real token; undefined = all real. Left or right padding both work: positions count
  // real tokens only. With `cache`, appends to it.
  at::Tensor hidden_states(const at::Tensor& ids, const at::Tensor& attention_mask = {}, KvCache* cache = nullptr) const;
  // hidden: [..., hidden_size] -> logits float32 [..., vocab_size]. Ask only for the positions you need: logits are large.
  at::Tensor logits(const at::Tensor& hidden) const;

  uint64_t weight_bytes() const;  // in memory
  bool is_quantized() const;

 private:
  DecoderConfig config_;
  DecoderOptions options_;
  at::Tensor embedding_;   // [vocab_size, hidden_size]
  at::Tensor final_norm_;  // [hidden_size]
  at::Tensor lm_head_;     // [vocab_size, hidden_size]; shares the embedding when tied
  std::vector<BlockWeights> blocks_;
};

}  // namespace salient::models
