#include "models/decoder/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>

#include <cmath>
#include <optional>
#include <vector>

#include "common/error.h"
#include "models/decoder/decode_attention.h"

namespace salient::models {
namespace {

// Logits of the explicit attention that are in memory at a time.
constexpr int64_t kLogitElements = int64_t{1} << 25;

struct HeadSizes {
  int64_t heads;  // of keys and values
  int64_t key;
  int64_t value;
};
HeadSizes cached_heads(const DecoderConfig& config) {
  if (config.latent.kv_lora_rank > 0) {
    return {config.num_attention_heads, config.latent.qk_nope_head_dim + config.latent.qk_rope_head_dim, config.latent.v_head_dim};
  }
  return {config.num_key_value_heads, config.head_dim, config.head_dim};
}

// Attention with logits in the open, for what the library's operator does not have: soft-capping and sinks. A few queries at a
// time.
at::Tensor explicit_attention(const DecoderConfig& config, const at::Tensor& sinks, const at::Tensor& query, const at::Tensor& keys,
                              const at::Tensor& values, const BlockMask& mask, double scale) {
  const int64_t batch = query.size(0);
  const int64_t heads = query.size(1);
  const int64_t tokens = query.size(2);
  const int64_t total = keys.size(2);
  const int64_t repeat = heads / keys.size(1);
  const at::Tensor wide_keys = repeat == 1 ? keys : keys.repeat_interleave(repeat, 1);
  const at::Tensor wide_values = repeat == 1 ? values : values.repeat_interleave(repeat, 1);
  const int64_t step = std::max<int64_t>(1, kLogitElements / (batch * heads * total));
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < tokens; begin += step) {
    const int64_t count = std::min(step, tokens - begin);
    at::Tensor logits = at::matmul(query.narrow(2, begin, count), wide_keys.transpose(2, 3)).mul_(scale);
    if (config.attention_softcap > 0.0) logits = logits.div_(config.attention_softcap).tanh_().mul_(config.attention_softcap);
    if (mask.mask.defined()) logits = logits + (mask.mask.size(2) == tokens ? mask.mask.narrow(2, begin, count) : mask.mask);
    if (sinks.defined())
      logits = at::cat({logits, sinks.to(logits.scalar_type()).view({1, heads, 1, 1}).expand({batch, heads, count, 1})}, -1);
    at::Tensor share = at::softmax(logits, -1, at::kFloat).to(values.scalar_type());
    if (sinks.defined()) share = share.narrow(-1, 0, total);
    parts.push_back(at::matmul(share, wide_values));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
}

struct Projected {
  at::Tensor query;  // [batch, tokens, heads, head_dim]
  at::Tensor keys;
  at::Tensor values;
  at::Tensor gate;  // of the attention's output [batch, tokens, heads * head_dim], or undefined
};

Projected project(const AttentionCall& call, const at::Tensor& x) {
  const DecoderConfig& config = call.config;
  const int64_t batch = x.size(0);
  const int64_t tokens = x.size(1);
  const int64_t dim = config.head_dim;
  const auto split = [&](const at::Tensor& y) { return y.reshape({batch, tokens, -1, dim}); };
  Projected result;
  if (const Linear& fused = call.weights.at(LinearSlot::kQkvProj); has_weight(fused)) {
    const int64_t groups = config.qkv_groups;
    const int64_t queries = config.num_attention_heads / groups;
    const int64_t keys = config.num_key_value_heads / groups;
    const at::Tensor all = forward(fused, x).view({batch, tokens, groups, queries + 2 * keys, dim});
    result.query = split(all.narrow(3, 0, queries));
    result.keys = split(all.narrow(3, queries, keys));
    result.values = split(all.narrow(3, queries + keys, keys));
  } else {
    at::Tensor query = forward(call.weights.at(LinearSlot::kQProj), x);
    if (config.query_gate) {
      const at::Tensor both = query.view({batch, tokens, config.num_attention_heads, 2 * dim});
      query = both.narrow(3, 0, dim);
      result.gate = both.narrow(3, dim, dim).reshape({batch, tokens, -1});
    }
    result.query = split(query);
    result.keys = split(forward(call.weights.at(LinearSlot::kKProj), x));
    result.values = split(forward(call.weights.at(LinearSlot::kVProj), x));
  }
  if (const Linear& gate = call.weights.at(LinearSlot::kOutputGate); has_weight(gate)) result.gate = forward(gate, x);
  return result;
}

// x: [batch, tokens, heads, head_dim]
at::Tensor normalize_heads(const DecoderConfig& config, const Norm& norm, const at::Tensor& x) {
  if (!norm.present || config.head_norm != HeadNorm::kWholeWidth) return normalize(norm, x);
  return normalize(norm, x.flatten(2)).view(x.sizes());
}

}  // namespace

KvCacheLayer make_cache_layer(const DecoderConfig& config, int64_t block, int64_t batch, int64_t capacity, at::ScalarType dtype,
                              at::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  KvCacheLayer layer;
  if (config.layers[static_cast<size_t>(block)].attention == AttentionKind::kLinear) {
    const LinearAttentionConfig& linear = config.linear_attention;
    const int64_t channels = 2 * linear.num_key_heads * linear.key_head_dim + linear.num_value_heads * linear.value_head_dim;
    layer.convolution = at::zeros({batch, channels, linear.convolution}, options);
    layer.recurrent =
        at::zeros({batch, linear.num_value_heads, linear.key_head_dim, linear.value_head_dim}, options.dtype(at::kFloat));
    return layer;
  }
  const HeadSizes sizes = cached_heads(config);
  layer.keys = at::empty({batch, sizes.heads, capacity, sizes.key}, options);
  layer.values = at::empty({batch, sizes.heads, capacity, sizes.value}, options);
  return layer;
}

uint64_t cache_bytes_per_token(const DecoderConfig& config, at::ScalarType dtype) {
  const HeadSizes sizes = cached_heads(config);
  uint64_t blocks = 0;
  for (const LayerConfig& layer : config.layers) blocks += layer.attention != AttentionKind::kLinear;
  return blocks * static_cast<uint64_t>(sizes.heads * (sizes.key + sizes.value)) * c10::elementSize(dtype);
}

KeysAndValues with_cache(const AttentionCall& call, const at::Tensor& keys, const at::Tensor& values) {
  if (call.cache == nullptr) return {keys, values};
  const int64_t tokens = keys.size(2);
  call.cache->keys.narrow(2, call.past_length, tokens).copy_(keys);
  call.cache->values.narrow(2, call.past_length, tokens).copy_(values);
  return {call.cache->keys.narrow(2, 0, call.past_length + tokens), call.cache->values.narrow(2, 0, call.past_length + tokens)};
}

at::Tensor attend(const AttentionCall& call, const at::Tensor& query, const KeysAndValues& seen) {
  const DecoderConfig& config = call.config;
  const int64_t batch = query.size(0);
  const int64_t tokens = query.size(2);
  const int64_t total = seen.keys.size(2);
  const double scale = config.attention_scale > 0.0 ? config.attention_scale : 1.0 / std::sqrt(static_cast<double>(query.size(3)));
  BlockMask mask = select_mask(call.context, call.layer(), tokens, total - tokens, query.scalar_type(), query.device());
  const auto joined = [&](const at::Tensor& output) { return output.transpose(1, 2).reshape({batch, tokens, -1}); };

  const at::Tensor& sinks = call.weights.at(ParameterSlot::kSinks);
  if (config.attention_softcap > 0.0 || sinks.defined()) {
    if (mask.causal) mask = {causal_mask(tokens, total - tokens, query.scalar_type(), query.device())};
    return joined(explicit_attention(config, sinks, query, seen.keys, seen.values, mask, scale));
  }
  const std::optional<at::Tensor> given = mask.mask.defined() ? std::optional(mask.mask) : std::nullopt;
  const int64_t group = query.size(1) / seen.keys.size(1);
  const bool same_for_heads = !given || given->size(1) == 1;
  if (tokens == 1) {
    if (at::Tensor output = decode_attention(query, seen.keys, seen.values, mask.mask, scale); output.defined()) return output;
  }
  if (tokens == 1 && group > 1 && same_for_heads) {
    // One new token: the query heads of a key head become its queries, which avoids copying the cache for each of them.
    const at::Tensor grouped = query.reshape({batch, seen.keys.size(1), group, query.size(3)});
    const at::Tensor output = at::scaled_dot_product_attention(grouped, seen.keys, seen.values, given, 0.0, false, scale);
    return output.reshape({batch, 1, -1});
  }
  return joined(at::scaled_dot_product_attention(query, seen.keys, seen.values, given, /*dropout_p=*/0.0, mask.causal, scale,
                                                 /*enable_gqa=*/group > 1));
}

at::Tensor standard_attention(const AttentionCall& call, const at::Tensor& x) {
  const DecoderConfig& config = call.config;
  call.observe(InputSlot::kAttentionInput, x);
  const Projected projected = project(call, x);
  const int64_t rope = call.layer().rope;
  const auto clip = [&](const at::Tensor& y) { return config.qkv_clip > 0.0 ? y.clamp(-config.qkv_clip, config.qkv_clip) : y; };
  const auto place = [&](const at::Tensor& heads, const Norm& norm) {  // -> [batch, heads, tokens, head_dim]
    const auto turn = [&](const at::Tensor& y) {
      return rope < 0 ? y
                      : rotate(y, call.context.rotary[static_cast<size_t>(rope)], config.ropes[static_cast<size_t>(rope)].pairs);
    };
    if (!config.head_norm_after_rope) return turn(clip(normalize_heads(config, norm, heads)).transpose(1, 2));
    return clip(normalize_heads(config, norm, turn(heads.transpose(1, 2)).transpose(1, 2))).transpose(1, 2);
  };
  at::Tensor query = place(projected.query, call.weights.at(NormSlot::kQuery));
  if (call.context.query_growth.defined() && (rope < 0 || !config.query_growth.unrotated_layers_only))
    query = query * call.context.query_growth;
  const at::Tensor keys = place(projected.keys, call.weights.at(NormSlot::kKey));
  at::Tensor attention = attend(call, query, with_cache(call, keys, clip(projected.values).transpose(1, 2)));
  if (projected.gate.defined()) attention = attention * at::sigmoid(projected.gate);
  call.observe(InputSlot::kAttentionOutput, attention);
  return forward(call.weights.at(LinearSlot::kOProj), attention);
}

at::Tensor attention_forward(const AttentionCall& call, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  switch (call.layer().attention) {
    case AttentionKind::kStandard: return standard_attention(call, x);
    case AttentionKind::kLatent: return latent_attention(call, x);
    case AttentionKind::kLinear: return linear_attention(call, x);
  }
  fail(ErrorKind::kInternal, "no attention kind {}", static_cast<int>(call.layer().attention));
}

}  // namespace salient::models
