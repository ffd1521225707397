// Another program's model in a decoder's place: only token ids and logits are seen of it. Its "hidden states" are its logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace salient::models {

struct ExternalModel {
  // ids: int64 [batch, tokens]; mask: bool of the same shape, true = a real token, or undefined -> float32 [batch, tokens,
  // vocab_size]. Must be causal. Called with the whole text every time: a cache keeps the ids.
  std::function<at::Tensor(const at::Tensor& ids, const at::Tensor& mask)> logits;
  uint64_t weight_bytes = 0;
  bool quantized = false;
};

}  // namespace salient::models
