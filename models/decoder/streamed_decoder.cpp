#include "models/decoder/streamed_decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>

#include "models/decoder/router.h"

namespace salient::models {

StreamedDecoder::StreamedDecoder(const Checkpoint& checkpoint, const DecoderConfig& config, uint64_t kept_bytes)
    : checkpoint_(checkpoint),
      config_(config),
      kept_bytes_(kept_bytes),
      embedding_(load_embedding(checkpoint, config, at::kFloat, at::kCPU, /*view_tokens=*/true)),
      head_(checkpoint, config, at::kCPU, StreamedHead::kept_bytes(config) <= kept_bytes),
      kept_(static_cast<size_t>(config.num_hidden_layers)) {
  if (StreamedHead::kept_bytes(config) <= kept_bytes) kept_bytes_ -= StreamedHead::kept_bytes(config);
}

uint64_t StreamedDecoder::most_kept_bytes(const DecoderConfig& config) {
  uint64_t weights = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (const LinearSpec& spec : block_layout(config, block).linears)
      weights += static_cast<uint64_t>(spec.out_features) * static_cast<uint64_t>(spec.in_features);
  }
  return StreamedHead::kept_bytes(config) + weights * sizeof(float);
}

void StreamedDecoder::start(int64_t rows, int64_t capacity) {
  cache_.clear();
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block)
    cache_.push_back(make_cache_layer(config_, block, rows, capacity, at::kFloat, at::kCPU));
  length_ = 0;
}

at::Tensor StreamedDecoder::next_logits(const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  const at::Tensor positions = at::arange(length_, length_ + ids.size(1), at::kLong).unsqueeze(0);
  const AttentionContext context = make_attention_context(config_, positions, length_, {}, at::kFloat);
  at::Tensor hidden = embed(config_, embedding_, ids, positions, at::kFloat);
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) hidden = run_block(block, context, hidden);
  length_ += ids.size(1);
  return head_.logits(hidden.select(1, ids.size(1) - 1));
}

at::Tensor StreamedDecoder::run_block(int64_t block, const AttentionContext& context, const at::Tensor& hidden) {
  const bool mixture = block_layout(config_, block).experts > 0;
  std::optional<BlockWeights>& kept = kept_[static_cast<size_t>(block)];
  std::optional<BlockWeights> loaded;
  if (!kept) loaded = load_block(checkpoint_, config_, block, at::kFloat, at::kCPU, mixture ? LoadExperts::kNo : LoadExperts::kYes);
  const BlockWeights& weights = kept ? *kept : *loaded;
  const BlockObserver nobody;
  const AttentionCall call{config_, weights, block, context, &cache_[static_cast<size_t>(block)], length_, nobody};
  at::Tensor output = mixture ? run_mixture(call, hidden) : block_forward(call, hidden);
  if (loaded && memory_bytes(*loaded) <= kept_bytes_) {
    kept_bytes_ -= memory_bytes(*loaded);
    kept = std::move(loaded);
  }
  return output;
}

at::Tensor StreamedDecoder::run_mixture(const AttentionCall& call, const at::Tensor& hidden) const {
  const AttentionHalf half = attention_half(call, hidden);
  const at::Tensor rows = half.mlp_input.flatten(0, 1);
  const Routing routing = route(config_, call.weights, rows);
  at::Tensor sum = shared_expert_forward(config_, call.weights, rows, call.observer);
  if (!sum.defined()) sum = at::zeros_like(rows);
  for (int64_t expert = 0; expert < block_layout(config_, call.block).experts; ++expert) {
    const ExpertRows sent = rows_of_expert(routing, expert);
    if (sent.rows.numel() == 0) continue;
    add_expert(config_, load_expert(checkpoint_, config_, call.block, expert, at::kFloat, at::kCPU), expert, sent, rows, sum,
               call.observer);
  }
  return finish_block(call, half.residual, sum.view(half.mlp_input.sizes()));
}

}  // namespace salient::models
