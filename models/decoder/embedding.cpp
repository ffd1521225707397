#include "models/decoder/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/tensor.h>

#include <variant>

#include "common/error.h"
#include "models/decoder/block_weights.h"
#include "models/io/packed_codes.h"

namespace salient::models {
namespace {

// In which a matrix of `vocab_size` rows, the largest of most models, is kept in memory.
at::ScalarType kept_dtype(const Checkpoint& checkpoint, const std::string& name, at::ScalarType dtype, at::Device device) {
  if (dtype != at::kFloat || !device.is_cpu() || !checkpoint.contains(name)) return dtype;
  const at::ScalarType stored = checkpoint.info(name).dtype;
  return stored == at::kHalf || stored == at::kBFloat16 ? stored : dtype;
}

}  // namespace

EmbeddingWeights load_embedding(const Checkpoint& checkpoint, const DecoderConfig& config, at::ScalarType dtype, at::Device device,
                                bool view_tokens) {
  const at::NoGradGuard no_grad;
  const TensorNames& names = config.names;
  EmbeddingWeights weights;
  const std::string tokens(names.embedding);
  weights.tokens = view_tokens ? checkpoint.view(tokens)
                               : checkpoint.load(tokens, {config.vocab_size, config.hidden_size},
                                                 kept_dtype(checkpoint, tokens, dtype, device), device);
  if (!names.position_embedding.empty()) {
    weights.positions =
        checkpoint.load(std::string(names.position_embedding), {config.learned_positions, config.hidden_size}, dtype, device);
  }
  if (!names.embedding_norm.empty()) weights.norm = load_norm(checkpoint, hidden_norm(config, names.embedding_norm), dtype, device);
  return weights;
}

at::Tensor embed(const DecoderConfig& config, const EmbeddingWeights& weights, const at::Tensor& ids,
                 const at::Tensor& position_ids, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  at::Tensor hidden = at::embedding(weights.tokens, ids).to(dtype);
  if (config.embedding_multiplier != 1.0) hidden = hidden * at::tensor(config.embedding_multiplier, hidden.options());
  if (weights.positions.defined()) {
    if (const int64_t last = position_ids.max().item<int64_t>() + config.position_offset; last >= config.learned_positions) {
      fail(ErrorKind::kInvalidArgument, "decoder: {} tokens are more than the {} positions of this model's table",
           last - config.position_offset + 1, config.learned_positions - config.position_offset);
    }
    hidden = hidden + at::embedding(weights.positions, position_ids + config.position_offset);
  }
  return normalize(weights.norm, hidden).contiguous();
}

Linear load_head(const Checkpoint& checkpoint, const DecoderConfig& config, const EmbeddingWeights& embedding, at::ScalarType dtype,
                 at::Device device) {
  LinearSpec spec;
  spec.name = std::string(config.names.lm_head);
  spec.out_features = config.vocab_size;
  spec.in_features = config.hidden_size;
  if (!config.tie_word_embeddings && has_codes(checkpoint, spec.name)) {
    spec.bias = config.lm_head_bias;
    return place(load_linear(checkpoint, spec, dtype), device, dtype);
  }
  FloatLinear head{embedding.tokens, {}};
  if (!config.tie_word_embeddings) {
    const at::ScalarType kept = kept_dtype(checkpoint, spec.name + ".weight", dtype, device);
    head = std::get<FloatLinear>(to_device(load_linear(checkpoint, spec, kept), device));
  }
  if (config.lm_head_bias) head.bias = checkpoint.load(spec.name + ".bias", {config.vocab_size}, dtype, device);
  return head;
}

at::Tensor scale_logits(const DecoderConfig& config, at::Tensor logits) {
  if (config.logit_multiplier != 1.0) logits = logits * config.logit_multiplier;
  if (config.logit_softcap > 0.0) logits = (logits / config.logit_softcap).tanh() * config.logit_softcap;
  return logits;
}

Norm load_final_norm(const Checkpoint& checkpoint, const DecoderConfig& config, at::ScalarType dtype, at::Device device) {
  if (config.names.final_norm.empty()) return {};
  return load_norm(checkpoint, hidden_norm(config, config.names.final_norm), dtype, device);
}

}  // namespace salient::models
