// The head of a float checkpoint that is not loaded as a whole: it is read from the mapped file and converted a piece at a time,
// and its pages are let go.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"

namespace salient::models {

// The tensor [vocab_size, hidden_size] of the head: lm_head's, or the embedding that it shares.
std::string head_tensor(const DecoderConfig& config);

inline constexpr int64_t kHeadPieceRows = 8192;  // of the matrix, converted at a time

class StreamedHead {
 public:
  // `checkpoint` and `config` must outlive the head. `keep`: the matrix stays in memory, as float32.
  StreamedHead(const Checkpoint& checkpoint, const DecoderConfig& config, at::Device device = at::kCPU, bool keep = false);

  // What keeping the matrix costs.
  static uint64_t kept_bytes(const DecoderConfig& config) {
    return static_cast<uint64_t>(config.vocab_size * config.hidden_size) * sizeof(float);
  }

  // hidden: float32 [n, hidden_size], the last block's output on the head's device -> float32 [n, vocab_size] there: final norm,
  // head, scale_logits. Beside the logits, a piece of the matrix is in memory. The same values whether the matrix is kept or not.
  at::Tensor logits(const at::Tensor& hidden) const;

 private:
  const Checkpoint& checkpoint_;
  const DecoderConfig& config_;
  at::Device device_;
  Norm final_norm_;
  at::Tensor matrix_;  // float32, or undefined when it is read from the file each time
  at::Tensor bias_;    // float32, or undefined
};

}  // namespace salient::models
