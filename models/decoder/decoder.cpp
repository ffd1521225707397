#include "models/decoder/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "common/error.h"
#include "common/log.h"
#include "models/io/compressed_config.h"
#include "models/io/detect_claims.h"

namespace salient::models {
namespace {

// Of config.json: AutoAWQ's layouts of 4 bits and compressed-tensors' packed integers can be run, and what GGUF files hold. Which
// layout a linear has, its tensors say (models/io/packed_codes.h).
void check_quantization(const Checkpoint& checkpoint) {
  const std::string where = (checkpoint.folder() / "config.json").string() + ": quantization_config";
  const auto it = checkpoint.config().find("quantization_config");
  if (it == checkpoint.config().end() || it->is_null()) return;
  const Json& config = *it;
  if (checkpoint.gguf() != nullptr) return;  // is dequantized when it is loaded
  if (value_or<std::string>(config, "quant_method", "", where) == "compressed-tensors") return check_runnable(config, where);
  const Claim claim = read_quantization_config(config, "config.json", where);
  if (claim.format.starts_with("awq-") && claim.bits.value_or(4) == 4) return;
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format("{}: {} cannot be run, only compressed-tensors and awq with 4 bits in version gemm, gemv, gemv_fast or marlin",
                  where, describe(claim)))
      .with_hint("for other methods (mxfp4, fp8, ...) dequantize the model first, or use a copy that is published in bfloat16");
}

// Nothing for a checkpoint that does not say.
RuntimeBits stored_bits(const Checkpoint& checkpoint) {
  const auto it = checkpoint.config().find("quantization_config");
  if (it == checkpoint.config().end() || !it->is_object() || checkpoint.gguf() != nullptr) return {};
  return read_runtime_bits(*it, (checkpoint.folder() / "config.json").string() + ": quantization_config");
}

int chosen_bits(std::string_view name, std::optional<int> wanted, std::optional<int> stored) {
  const int bits = wanted.value_or(stored.value_or(16));
  if (bits != 8 && bits != 16) fail(ErrorKind::kInvalidArgument, "{}: found {}, expected 8 or 16 (as computed)", name, bits);
  return bits;
}

// `stored`: the checkpoint has scales.
KvScheme load_kv_scheme(const Checkpoint& checkpoint, const DecoderConfig& config, int64_t block, int bits, bool stored,
                        at::Device device) {
  KvScheme scheme{bits, {}, {}};
  if (bits == 16 || !stored || config.layers[static_cast<size_t>(block)].attention == AttentionKind::kLinear) return scheme;
  const std::string module = attention_module(config, block);
  scheme.key_scale = checkpoint.load(module + ".k_scale", {1}, at::kFloat, device).unsqueeze(0);
  scheme.value_scale = checkpoint.load(module + ".v_scale", {1}, at::kFloat, device).unsqueeze(0);
  return scheme;
}

// The places in the flattened batch that an observer is shown, int64 on `device`; undefined = all. `mask`: of this call's tokens,
// or undefined.
at::Tensor shown_places(const DecoderConfig& config, const Observation& observation, const at::Tensor& mask, int64_t batch,
                        int64_t tokens, at::Device device) {
  const at::Tensor& shown = observation.shown.defined() ? observation.shown : mask;
  if (!shown.defined()) return {};
  if (shown.scalar_type() != at::kBool || shown.sizes() != at::IntArrayRef({batch, tokens})) {
    fail(ErrorKind::kInvalidArgument, "decoder: the tokens shown to an observer must be bool [{}, {}], found {} of [{}]", batch,
         tokens, c10::toString(shown.scalar_type()), fmt::join(shown.sizes(), ", "));
  }
  if (shown.all().item<bool>()) return {};
  if (std::any_of(config.layers.begin(), config.layers.end(), [](const LayerConfig& layer) { return layer.moe; })) {
    fail(ErrorKind::kInvalidArgument,
         "decoder: {} is a mixture of experts, whose inputs can be observed only in batches without padding", config.model_type);
  }
  return shown.flatten().nonzero().squeeze(1).to(device);
}

}  // namespace

void grow_cache(KvCache& cache, int64_t capacity) {
  const at::NoGradGuard no_grad;
  if (capacity < cache.length)
    fail(ErrorKind::kInternal, "key-value cache: capacity {} is below its length {}", capacity, cache.length);
  for (KvCacheLayer& layer : cache.layers) {
    for (at::Tensor* tensor : {&layer.keys, &layer.values, &layer.key_scales, &layer.value_scales}) {
      if (!tensor->defined()) continue;
      std::vector<int64_t> shape = tensor->sizes().vec();
      shape[2] = capacity;
      at::Tensor larger = at::empty(shape, tensor->options());
      larger.narrow(2, 0, cache.length).copy_(tensor->narrow(2, 0, cache.length));
      *tensor = std::move(larger);
    }
  }
  cache.capacity = capacity;
  cache.step.reset();
}

void select_cache(KvCache& cache, const at::Tensor& rows, int64_t skip) {
  const at::NoGradGuard no_grad;
  if (skip < 0 || skip > cache.length)
    fail(ErrorKind::kInternal, "key-value cache: cannot drop {} of {} tokens", skip, cache.length);
  for (KvCacheLayer& layer : cache.layers) {
    for (at::Tensor* tensor : {&layer.keys, &layer.values, &layer.key_scales, &layer.value_scales}) {
      if (tensor->defined()) *tensor = tensor->narrow(2, skip, cache.capacity - skip).index_select(0, rows.to(tensor->device()));
    }
    for (at::Tensor* tensor : {&layer.convolution, &layer.recurrent}) {
      if (tensor->defined()) *tensor = tensor->index_select(0, rows.to(tensor->device()));
    }
  }
  cache.rows = rows.size(0);
  cache.length -= skip;
  cache.capacity -= skip;
  cache.step.reset();
}

void copy_slot(KvCache& cache, int64_t from, int64_t to, int64_t tokens) {
  const at::NoGradGuard no_grad;
  for (KvCacheLayer& layer : cache.layers) {
    for (const at::Tensor& tensor : {layer.keys, layer.values, layer.key_scales, layer.value_scales}) {
      if (tensor.defined()) tensor.select(0, to).narrow(1, 0, tokens).copy_(tensor.select(0, from).narrow(1, 0, tokens));
    }
  }
}

Decoder Decoder::load(const Checkpoint& checkpoint, const DecoderOptions& options) {
  const at::NoGradGuard no_grad;
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16 && options.dtype != at::kHalf) {
    fail(ErrorKind::kUnsupported, "a decoder cannot run in {}, only in float32, bfloat16 or float16", c10::toString(options.dtype));
  }
  check_quantization(checkpoint);
  const RuntimeBits stored = stored_bits(checkpoint);
  Decoder decoder;
  decoder.options_ = options;
  decoder.options_.activation_bits = chosen_bits("activation_bits", options.activation_bits, stored.activation_bits);
  decoder.options_.kv_bits = chosen_bits("kv_bits", options.kv_bits, stored.kv_bits);
  decoder.config_ = load_decoder_config(checkpoint);
  const DecoderConfig& config = decoder.config_;
  decoder.embedding_ = load_embedding(checkpoint, config, options.dtype, options.device);
  decoder.final_norm_ = load_final_norm(checkpoint, config, options.dtype, options.device);
  decoder.lm_head_ = load_head(checkpoint, config, decoder.embedding_, options.dtype, options.device);
  // On the CPU a linear is read into the order that it runs in, without another copy of it on the way.
  const int read_bits = options.device.is_cpu() ? *decoder.options_.activation_bits : 16;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    decoder.blocks_.push_back(load_block(checkpoint, config, block, options.dtype, options.device, LoadExperts::kYes, read_bits));
    decoder.kv_.push_back(
        load_kv_scheme(checkpoint, config, block, *decoder.options_.kv_bits, stored.kv_bits.has_value(), options.device));
  }
  if (*decoder.options_.activation_bits == 8 && !decoder.round_activations() && options.activation_bits) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: 8-bit activations are wanted, but no linear is quantized", checkpoint.folder().string()))
        .with_hint("activations are rounded for quantized weights only: leave --activation-bits out, or quantize the model first");
  }
  decoder.why_no_step_ = "only float32 on the CPU has one";
  if (options.dtype == at::kFloat && options.device.is_cpu())
    decoder.step_ = TokenStep::make(config, decoder.blocks_, decoder.kv_, &decoder.why_no_step_);
  if (decoder.step_ != nullptr) decoder.why_no_step_.clear();
  if (decoder.step_ == nullptr)
    log_debug("no_token_step reason=\"{}\" folder={}", decoder.why_no_step_, checkpoint.folder().string());
  return decoder;
}

Decoder Decoder::of(ExternalModel model, DecoderConfig config, const DecoderOptions& options) {
  for (const auto& [name, bits] : {std::pair{"activations", options.activation_bits}, std::pair{"a KV cache", options.kv_bits}}) {
    if (bits.value_or(16) == 16) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{} of {} bits cannot be chosen for a {} module", name, *bits, config.model_type))
        .with_hint("the module computes as it was made; evaluate the folder that it was exported from");
  }
  Decoder decoder;
  decoder.config_ = std::move(config);
  decoder.options_ = options;
  decoder.options_.activation_bits = 16;
  decoder.options_.kv_bits = 16;
  decoder.why_no_step_ = "it is a module of another program";
  decoder.external_ = std::move(model);
  return decoder;
}

KvCache Decoder::make_cache(int64_t batch, int64_t capacity) const {
  const at::NoGradGuard no_grad;
  KvCache cache;
  cache.rows = batch;
  cache.capacity = capacity;
  if (external_.logits) {
    cache.layers.emplace_back().keys = at::empty({batch, 1, capacity, 1}, at::TensorOptions(at::kLong).device(options_.device));
    return cache;
  }
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) {
    cache.layers.push_back(
        make_cache_layer(config_, block, batch, capacity, options_.dtype, options_.device, kv_[static_cast<size_t>(block)]));
  }
  return cache;
}

uint64_t Decoder::cache_bytes_per_token() const {
  return external_.logits ? sizeof(int64_t) : models::cache_bytes_per_token(config_, options_.dtype, *options_.kv_bits);
}

at::Tensor Decoder::external_logits(const at::Tensor& ids, const at::Tensor& attention_mask, KvCache* cache,
                                    const Observation& observation) const {
  if (observation.observer != nullptr && *observation.observer) {
    fail(ErrorKind::kUnsupported, "the inputs of the linears of a {} module cannot be observed, only those of a checkpoint",
         config_.model_type);
  }
  const int64_t tokens = ids.size(1);
  if (cache == nullptr) return external_.logits(ids, attention_mask);
  const at::Tensor& kept = cache->layers.front().keys;
  kept.narrow(2, cache->length, tokens).copy_(ids.view({ids.size(0), 1, tokens, 1}));
  cache->length += tokens;
  return external_.logits(kept.narrow(2, 0, cache->length).flatten(1), attention_mask).narrow(1, cache->length - tokens, tokens);
}

namespace {

void check_ids(const at::Tensor& ids, int64_t vocab_size) {
  const int64_t lowest = ids.min().item<int64_t>();
  const int64_t highest = ids.max().item<int64_t>();
  if (lowest >= 0 && highest < vocab_size) return;
  fail(ErrorKind::kInvalidArgument, "decoder: token id {} is outside the vocabulary of {}", lowest < 0 ? lowest : highest,
       vocab_size);
}

void check_rows(const RaggedBatch& batch) {
  int64_t tokens = 0;
  for (const RaggedRow& row : batch.rows) {
    tokens += row.tokens;
    const bool fits =
        row.slot < 0 || (batch.cache != nullptr && row.slot < batch.cache->rows && row.past + row.tokens <= batch.cache->capacity);
    if (row.tokens < 1 || !fits) {
      fail(ErrorKind::kInvalidArgument, "decoder: a row of {} tokens behind {} does not fit slot {} of the cache", row.tokens,
           row.past, row.slot);
    }
  }
  if (batch.ids.dim() != 1 || batch.ids.scalar_type() != at::kLong || batch.ids.numel() == 0 || batch.ids.size(0) != tokens ||
      !batch.positions.sizes().equals(batch.ids.sizes())) {
    fail(ErrorKind::kInvalidArgument, "decoder: ids and positions must be int64 [{}] for these rows, found [{}] and [{}]", tokens,
         fmt::join(batch.ids.sizes(), ", "), fmt::join(batch.positions.sizes(), ", "));
  }
}

// With at least kLeastRaggedTokens tokens.
RaggedBatch filled_up(RaggedBatch batch) {
  const int64_t missing = kLeastRaggedTokens - batch.tokens();
  if (missing <= 0) return batch;
  batch.rows.push_back({missing, -1, 0, {}});
  batch.ids = at::cat({batch.ids, at::zeros({missing}, batch.ids.options())});
  batch.positions = at::cat({batch.positions, at::arange(missing)});
  return batch;
}

// The tokens that are wanted, on `device`, filled up to kLeastRaggedTokens with the first token; undefined: all.
at::Tensor wanted_rows(const RaggedBatch& batch, at::Device device) {
  if (!batch.wanted.defined()) return {};
  const int64_t missing = kLeastRaggedTokens - batch.wanted.size(0);
  return (missing > 0 ? at::cat({batch.wanted, at::zeros({missing}, at::kLong)}) : batch.wanted).to(device);
}

}  // namespace

at::Tensor Decoder::hidden_states(const at::Tensor& ids, const at::Tensor& attention_mask, KvCache* cache,
                                  const Observation& observation) const {
  const at::NoGradGuard no_grad;
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
    fail(ErrorKind::kInvalidArgument, "decoder: ids must be int64 [batch, tokens] and not empty, found {} of [{}]",
         c10::toString(ids.scalar_type()), fmt::join(ids.sizes(), ", "));
  }
  const int64_t batch = ids.size(0);
  const int64_t tokens = ids.size(1);
  const int64_t past_length = cache != nullptr ? cache->length : 0;
  const int64_t total = past_length + tokens;
  check_ids(ids, config_.vocab_size);
  if (cache != nullptr &&
      (total > cache->capacity || cache->layers.size() != (external_.logits ? 1 : blocks_.size()) || cache->rows != batch)) {
    fail(ErrorKind::kInvalidArgument, "decoder: {} rows of {} tokens do not fit the cache of {} rows, {} of {} tokens filled",
         batch, tokens, cache->rows, cache->length, cache->capacity);
  }
  if (attention_mask.defined() &&
      (attention_mask.scalar_type() != at::kBool || attention_mask.sizes() != at::IntArrayRef({batch, total}))) {
    fail(ErrorKind::kInvalidArgument, "decoder: the attention mask must be bool [{}, {}], found {} of [{}]", batch, total,
         c10::toString(attention_mask.scalar_type()), fmt::join(attention_mask.sizes(), ", "));
  }

  if (external_.logits) return external_logits(ids, attention_mask, cache, observation);
  const bool padded = attention_mask.defined() && !attention_mask.all().item<bool>();
  const at::Tensor real = padded ? attention_mask.to(options_.device) : at::Tensor();
  const at::Tensor positions =
      padded ? (real.cumsum(1, at::kLong).sub_(1).clamp_min_(0)).narrow(1, past_length, tokens)
             : at::arange(past_length, total, at::TensorOptions(at::kLong).device(options_.device)).unsqueeze(0);
  const AttentionContext context = make_attention_context(config_, positions, past_length, real, options_.dtype);
  int64_t running = 0;  // block
  at::Tensor places;
  BlockObserver observe;
  if (observation.observer != nullptr && *observation.observer) {
    places = shown_places(config_, observation, padded ? attention_mask.narrow(1, past_length, tokens) : at::Tensor(), batch,
                          tokens, options_.device);
    observe = [&](InputId input, const at::Tensor& x) {
      const at::Tensor rows = x.flatten(0, -2);
      const at::Tensor shown = places.defined() ? rows.index_select(0, places) : rows;
      if (shown.size(0) > 0) (*observation.observer)(running, input, shown);
    };
  }
  at::Tensor hidden = embed(config_, embedding_, ids.to(options_.device), positions, options_.dtype);
  if (step_ != nullptr && tokens == 1 && batch <= TokenStep::kMaxRows && cache != nullptr && !observe) {
    step_->run(context, past_length, cache->layers, cache->step, hidden);
    cache->length = total;
    return normalize(final_norm_, hidden);
  }
  for (size_t block = 0; block < blocks_.size(); ++block) {
    KvCacheLayer* layer = cache != nullptr ? &cache->layers[block] : nullptr;
    running = static_cast<int64_t>(block);
    hidden = block_forward({config_, blocks_[block], running, context, layer, past_length, observe, kv_[block]}, hidden);
  }
  if (cache != nullptr) cache->length = total;
  return normalize(final_norm_, hidden);
}

bool Decoder::runs_ragged(int64_t longest) const {
  const bool changes = std::any_of(config_.ropes.begin(), config_.ropes.end(), [&](const RopeConfig& rope) {
    const int64_t last = angles_change_after(rope);
    return last > 0 && longest > last;
  });
  const bool recurrent = std::any_of(config_.layers.begin(), config_.layers.end(),
                                     [](const LayerConfig& layer) { return layer.attention == AttentionKind::kLinear; });
  return !external_.logits && !changes && !recurrent;
}

bool Decoder::rows_are_independent() const {
  const auto few_rows_as_many = [](const MlpWeights& expert) {
    const Linear* const linears[] = {&expert.gate, &expert.up, &expert.gate_up, &expert.down};
    return std::all_of(std::begin(linears), std::end(linears), [](const Linear* linear) {
      const auto* plain = std::get_if<FloatLinear>(linear);
      return plain != nullptr && (!plain->weight.defined() || plain->weight.scalar_type() == at::kFloat);
    });
  };
  return options_.device.is_cpu() && options_.dtype == at::kFloat && !external_.logits &&
         std::all_of(blocks_.begin(), blocks_.end(), [&](const BlockWeights& block) {
           return std::all_of(block.experts.begin(), block.experts.end(), few_rows_as_many);
         });
}

at::Tensor Decoder::hidden_states(const RaggedBatch& asked) const {
  const at::NoGradGuard no_grad;
  check_rows(asked);
  check_ids(asked.ids, config_.vocab_size);
  const RaggedBatch batch = filled_up(asked);
  if (const int64_t longest = asked.positions.max().item<int64_t>() + 1; !runs_ragged(longest)) {
    fail(ErrorKind::kUnsupported, "decoder: {} cannot run rows of {} tokens side by side without padding", config_.model_type,
         longest);
  }
  const at::Tensor positions = batch.positions.unsqueeze(0).to(options_.device);
  AttentionContext context = make_position_context(config_, positions, options_.dtype);
  const RaggedLayout layout = make_ragged_layout(config_, batch, options_.dtype, options_.device);
  context.ragged = &layout;
  const BlockObserver nobody;
  at::Tensor hidden = embed(config_, embedding_, batch.ids.unsqueeze(0).to(options_.device), positions, options_.dtype);
  const at::Tensor chosen = wanted_rows(asked, options_.device);
  for (size_t block = 0; block < blocks_.size(); ++block) {
    const AttentionCall call = {config_, blocks_[block], static_cast<int64_t>(block), context, nullptr, 0, nobody, kv_[block]};
    AttentionHalf half = attention_half(call, hidden);
    if (chosen.defined() && block + 1 == blocks_.size()) {
      half.residual = half.residual.index_select(1, chosen);
      half.mlp_input = half.mlp_input.index_select(1, chosen);
    }
    hidden = finish_block(call, half.residual, mlp_half(call, half.mlp_input));
  }
  return normalize(final_norm_, hidden).squeeze(0).narrow(0, 0, chosen.defined() ? asked.wanted.size(0) : asked.tokens());
}

at::Tensor Decoder::row_logits(const at::Tensor& hidden) const {
  const at::NoGradGuard no_grad;
  const int64_t rows = hidden.size(0);
  if (rows >= kLeastRaggedTokens) return logits(hidden);
  const at::Tensor rest = at::zeros({kLeastRaggedTokens - rows, hidden.size(1)}, hidden.options());
  return logits(at::cat({hidden, rest})).narrow(0, 0, rows);
}

at::Tensor Decoder::embedded(const at::Tensor& ids) const {
  const at::NoGradGuard no_grad;
  const at::Tensor positions = at::arange(ids.size(1), at::TensorOptions(at::kLong).device(options_.device)).unsqueeze(0);
  return embed(config_, embedding_, ids.to(options_.device), positions, options_.dtype);
}

at::Tensor Decoder::run_block(int64_t block, const at::Tensor& hidden, const BlockWeights* weights) const {
  const at::NoGradGuard no_grad;
  const at::Tensor positions = at::arange(hidden.size(1), at::TensorOptions(at::kLong).device(options_.device)).unsqueeze(0);
  const AttentionContext context = make_attention_context(config_, positions, /*past_length=*/0, {}, options_.dtype);
  const BlockObserver nobody;
  const auto index = static_cast<size_t>(block);
  return block_forward({config_, weights != nullptr ? *weights : blocks_[index], block, context, nullptr, 0, nobody, kv_[index]},
                       hidden);
}

at::Tensor Decoder::finished(const at::Tensor& hidden) const {
  const at::NoGradGuard no_grad;
  return normalize(final_norm_, hidden);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  const at::NoGradGuard no_grad;
  if (external_.logits) return hidden;
  return scale_logits(config_, forward(lm_head_, hidden).to(at::kFloat));
}

uint64_t Decoder::lookup_bytes() const {
  const auto* head = std::get_if<FloatLinear>(&lm_head_);
  const bool tied = head != nullptr && head->weight.is_same(embedding_.tokens);
  return tied ? 0 : memory_bytes(embedding_.tokens);
}

uint64_t Decoder::weight_bytes() const {
  if (external_.logits) return external_.weight_bytes;
  uint64_t total = lookup_bytes() + memory_bytes(lm_head_) + memory_bytes(embedding_.positions) + memory_bytes(final_norm_.weight) +
                   memory_bytes(final_norm_.bias);
  for (const BlockWeights& block : blocks_) total += memory_bytes(block);
  return total;
}

bool Decoder::round_activations() {
  bool any = set_activation_bits(lm_head_, 8);
  const auto round = [&](Linear& linear) { any = set_activation_bits(linear, 8) || any; };
  const auto round_all = [&](MlpWeights& mlp) {
    for (Linear* linear : {&mlp.gate, &mlp.up, &mlp.gate_up, &mlp.down}) round(*linear);
  };
  for (BlockWeights& block : blocks_) {
    for (Linear& linear : block.linears) round(linear);
    round_all(block.mlp);
    round_all(block.shared_expert);
    for (MlpWeights& expert : block.experts) round_all(expert);
  }
  return any;
}

bool Decoder::is_quantized() const {
  if (external_.logits) return external_.quantized;
  const auto packed = [](const Linear& linear) { return models::is_quantized(linear); };
  const auto any_in = [&](const MlpWeights& mlp) {
    return packed(mlp.gate) || packed(mlp.up) || packed(mlp.gate_up) || packed(mlp.down);
  };
  return std::any_of(blocks_.begin(), blocks_.end(), [&](const BlockWeights& block) {
    return std::any_of(block.linears.begin(), block.linears.end(), packed) || any_in(block.mlp) || any_in(block.shared_expert) ||
           std::any_of(block.experts.begin(), block.experts.end(), any_in);
  });
}

}  // namespace salient::models
