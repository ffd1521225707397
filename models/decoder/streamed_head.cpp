#include "models/decoder/streamed_head.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "models/decoder/embedding.h"
#include "models/decoder/float_product.h"

namespace salient::models {

std::string head_tensor(const DecoderConfig& config) {
  return config.tie_word_embeddings ? std::string(config.names.embedding) : std::string(config.names.lm_head) + ".weight";
}

StreamedHead::StreamedHead(const Checkpoint& checkpoint, const DecoderConfig& config, at::Device device, bool keep)
    : checkpoint_(checkpoint),
      config_(config),
      device_(device),
      final_norm_(load_final_norm(checkpoint, config, at::kFloat, device)) {
  if (keep) matrix_ = checkpoint.load(head_tensor(config), {config.vocab_size, config.hidden_size}, at::kFloat, device);
  if (config.lm_head_bias)
    bias_ = checkpoint.load(std::string(config.names.lm_head) + ".bias", {config.vocab_size}, at::kFloat, device);
}

at::Tensor StreamedHead::logits(const at::Tensor& hidden) const {
  const at::NoGradGuard no_grad;
  const at::Tensor x = normalize(final_norm_, hidden);
  const at::Tensor matrix = matrix_.defined() ? matrix_ : checkpoint_.view(head_tensor(config_));
  at::Tensor logits = at::empty({x.size(0), matrix.size(0)}, x.options());
  for (int64_t begin = 0; begin < matrix.size(0); begin += kHeadPieceRows) {
    const int64_t rows = std::min(kHeadPieceRows, matrix.size(0) - begin);
    logits.narrow(1, begin, rows).copy_(float_product(x, matrix.narrow(0, begin, rows).to(device_).to(at::kFloat)));
    if (!matrix_.defined()) checkpoint_.release(head_tensor(config_));
  }
  if (bias_.defined()) logits.add_(bias_);
  return scale_logits(config_, logits);
}

}  // namespace salient::models
