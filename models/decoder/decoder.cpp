#include "models/decoder/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace salient::models {
namespace {

// Only AutoAWQ's 4-bit GEMM tensors can be run.
void check_quantization(const Checkpoint& checkpoint) {
  const std::string where = (checkpoint.folder() / "config.json").string() + ": quantization_config";
  const auto it = checkpoint.config().find("quantization_config");
  if (it == checkpoint.config().end() || it->is_null()) return;
  const Json& config = *it;
  const std::string method = value_or<std::string>(config, "quant_method", "", where);
  const std::string version = value_or<std::string>(config, "version", "gemm", where);
  const int64_t bits = value_or<int64_t>(config, "bits", value_or<int64_t>(config, "w_bit", 4, where), where);
  if (method != "awq" || (version != "gemm" && version != "GEMM") || bits != 4) {
    fail(ErrorKind::kUnsupported, "{}: quant_method '{}', version '{}', {} bits cannot be run, only awq, gemm, 4 bits", where,
         method, version, bits);
  }
}

uint64_t bytes_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : 0; }

}  // namespace

void grow_cache(KvCache& cache, int64_t capacity) {
  const at::NoGradGuard no_grad;
  if (capacity < cache.length)
    fail(ErrorKind::kInternal, "key-value cache: capacity {} is below its length {}", capacity, cache.length);
  for (KvCacheLayer& layer : cache.layers) {
    for (at::Tensor* tensor : {&layer.keys, &layer.values}) {
      std::vector<int64_t> shape = tensor->sizes().vec();
      shape[2] = capacity;
      at::Tensor larger = at::empty(shape, tensor->options());
      larger.narrow(2, 0, cache.length).copy_(tensor->narrow(2, 0, cache.length));
      *tensor = std::move(larger);
    }
  }
  cache.capacity = capacity;
}

void select_cache(KvCache& cache, const at::Tensor& rows, int64_t skip) {
  const at::NoGradGuard no_grad;
  if (skip < 0 || skip > cache.length)
    fail(ErrorKind::kInternal, "key-value cache: cannot drop {} of {} tokens", skip, cache.length);
  for (KvCacheLayer& layer : cache.layers) {
    for (at::Tensor* tensor : {&layer.keys, &layer.values})
      *tensor = tensor->narrow(2, skip, cache.capacity - skip).index_select(0, rows.to(tensor->device()));
  }
  cache.length -= skip;
  cache.capacity -= skip;
}

Decoder Decoder::load(const Checkpoint& checkpoint, const DecoderOptions& options) {
  const at::NoGradGuard no_grad;
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16 && options.dtype != at::kHalf) {
    fail(ErrorKind::kUnsupported, "a decoder cannot run in {}, only in float32, bfloat16 or float16", c10::toString(options.dtype));
  }
  check_quantization(checkpoint);
  Decoder decoder;
  decoder.options_ = options;
  decoder.config_ = load_decoder_config(checkpoint.folder());
  const DecoderConfig& config = decoder.config_;
  const Architecture& architecture = find_architecture(config.model_type);
  const auto load = [&](std::string_view name, const std::vector<int64_t>& shape) {
    return checkpoint.load(std::string(name), shape, options.dtype, options.device);
  };

  decoder.embedding_ = load(architecture.embedding, {config.vocab_size, config.hidden_size});
  decoder.final_norm_ = load(architecture.final_norm, {config.hidden_size});
  decoder.lm_head_ =
      config.tie_word_embeddings ? decoder.embedding_ : load(architecture.lm_head, {config.vocab_size, config.hidden_size});
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    decoder.blocks_.push_back(load_block(checkpoint, config, block, options.dtype, options.device));
  }
  return decoder;
}

KvCache Decoder::make_cache(int64_t batch, int64_t capacity) const {
  const at::NoGradGuard no_grad;
  KvCache cache;
  cache.capacity = capacity;
  const auto tensor_options = at::TensorOptions().dtype(options_.dtype).device(options_.device);
  const std::vector<int64_t> shape = {batch, config_.num_key_value_heads, capacity, config_.head_dim};
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) {
    cache.layers.push_back({at::empty(shape, tensor_options), at::empty(shape, tensor_options)});
  }
  return cache;
}

uint64_t Decoder::cache_bytes_per_token() const {
  return static_cast<uint64_t>(2 * config_.num_hidden_layers * config_.num_key_value_heads * config_.head_dim) *
         c10::elementSize(options_.dtype);
}

at::Tensor Decoder::hidden_states(const at::Tensor& ids, const at::Tensor& attention_mask, KvCache* cache) const {
  const at::NoGradGuard no_grad;
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
    fail(ErrorKind::kInvalidArgument, "decoder: ids must be int64 [batch, tokens] and not empty, found {} of [{}]",
         c10::toString(ids.scalar_type()), fmt::join(ids.sizes(), ", "));
  }
  const int64_t batch = ids.size(0);
  const int64_t tokens = ids.size(1);
  const int64_t past_length = cache != nullptr ? cache->length : 0;
  const int64_t total = past_length + tokens;
  const int64_t lowest = ids.min().item<int64_t>();
  const int64_t highest = ids.max().item<int64_t>();
  if (lowest < 0 || highest >= config_.vocab_size) {
    fail(ErrorKind::kInvalidArgument, "decoder: token id {} is outside the vocabulary of {}", lowest < 0 ? lowest : highest,
         config_.vocab_size);
  }
  if (cache != nullptr &&
      (total > cache->capacity || cache->layers.size() != blocks_.size() || cache->layers.front().keys.size(0) != batch)) {
    fail(ErrorKind::kInvalidArgument, "decoder: {} rows of {} tokens do not fit the cache of {} rows, {} of {} tokens filled",
         batch, tokens, cache->layers.empty() ? 0 : cache->layers.front().keys.size(0), cache->length, cache->capacity);
  }
  if (attention_mask.defined() &&
      (attention_mask.scalar_type() != at::kBool || attention_mask.sizes() != at::IntArrayRef({batch, total}))) {
    fail(ErrorKind::kInvalidArgument, "decoder: the attention mask must be bool [{}, {}], found {} of [{}]", batch, total,
         c10::toString(attention_mask.scalar_type()), fmt::join(attention_mask.sizes(), ", "));
  }

  const bool padded = attention_mask.defined() && !attention_mask.all().item<bool>();
  const at::Tensor real = padded ? attention_mask.to(options_.device) : at::Tensor();
  const at::Tensor positions =
      padded ? (real.cumsum(1, at::kLong).sub_(1).clamp_min_(0)).narrow(1, past_length, tokens)
             : at::arange(past_length, total, at::TensorOptions(at::kLong).device(options_.device)).unsqueeze(0);
  AttentionContext context = make_attention_context(config_, positions, options_.dtype);
  if (padded)
    context.mask = make_padding_mask(real, tokens, options_.dtype);
  else if (past_length > 0 && tokens > 1)
    context.mask = make_causal_mask(tokens, past_length, options_.dtype, options_.device);
  add_window_masks(context, config_, tokens, past_length);

  at::Tensor hidden = at::embedding(embedding_, ids.to(options_.device));
  for (size_t block = 0; block < blocks_.size(); ++block) {
    KvCacheLayer* layer = cache != nullptr ? &cache->layers[block] : nullptr;
    hidden = block_forward(config_, blocks_[block], static_cast<int64_t>(block), hidden, context, layer, past_length);
  }
  if (cache != nullptr) cache->length = total;
  return rms_norm(hidden, final_norm_, config_.rms_norm_eps);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  const at::NoGradGuard no_grad;
  return at::linear(hidden, lm_head_).to(at::kFloat);
}

uint64_t Decoder::weight_bytes() const {
  uint64_t total = bytes_of(embedding_) + bytes_of(final_norm_) + (lm_head_.is_same(embedding_) ? 0 : bytes_of(lm_head_));
  for (const BlockWeights& block : blocks_) {
    for (const Linear& linear : block.linears) total += memory_bytes(linear);
    for (const at::Tensor& norm : block.norms) total += bytes_of(norm);
  }
  return total;
}

bool Decoder::is_quantized() const {
  return std::any_of(blocks_.begin(), blocks_.end(), [](const BlockWeights& block) {
    return std::any_of(block.linears.begin(), block.linears.end(),
                       [](const Linear& linear) { return std::holds_alternative<PackedLinear>(linear); });
  });
}

}  // namespace salient::models
