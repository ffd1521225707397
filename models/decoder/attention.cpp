#include "models/decoder/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
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
#include "models/decoder/ragged_attention.h"
#include "quant/fixed_parts.h"
#include "quant/fixed_product.h"
#include "quant/int8_rows.h"

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

// Each key head for the query heads that share it.
at::Tensor repeat_heads(const at::Tensor& x, int64_t repeat) { return repeat == 1 ? x : x.repeat_interleave(repeat, 1); }

// Attention with logits in the open, for what the library's operator does not have: soft-capping and sinks. A few queries at a
// time.
at::Tensor explicit_attention(const DecoderConfig& config, const at::Tensor& sinks, const at::Tensor& query, const at::Tensor& keys,
                              const at::Tensor& values, const BlockMask& mask, double scale) {
  const int64_t batch = query.size(0);
  const int64_t heads = query.size(1);
  const int64_t tokens = query.size(2);
  const int64_t total = keys.size(2);
  const int64_t repeat = heads / keys.size(1);
  const at::Tensor wide_keys = repeat_heads(keys, repeat);
  const at::Tensor wide_values = repeat_heads(values, repeat);
  const int64_t step = std::max<int64_t>(1, kLogitElements / (batch * heads * total));
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < tokens; begin += step) {
    const int64_t count = std::min(step, tokens - begin);
    at::Tensor logits = quant::product(query.narrow(2, begin, count), wide_keys.transpose(2, 3)).mul_(scale);
    if (config.attention_softcap > 0.0) logits = logits.div_(config.attention_softcap).tanh_().mul_(config.attention_softcap);
    if (mask.mask.defined()) logits = logits + (mask.mask.size(2) == tokens ? mask.mask.narrow(2, begin, count) : mask.mask);
    if (sinks.defined())
      logits = at::cat({logits, sinks.to(logits.scalar_type()).view({1, heads, 1, 1}).expand({batch, heads, count, 1})}, -1);
    at::Tensor share = at::softmax(logits, -1, at::kFloat).to(values.scalar_type());
    if (sinks.defined()) share = share.narrow(-1, 0, total);
    parts.push_back(quant::product(share, wide_values));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
}

// What attention adds to keys and values.
struct AttentionTerms {
  at::Tensor sinks;  // [heads], or undefined
  BlockMask mask;
  double scale = 1.0;
};

// keys, values: float.
at::Tensor attend_float(const DecoderConfig& config, const AttentionTerms& terms, const at::Tensor& query, const at::Tensor& keys,
                        const at::Tensor& values) {
  const int64_t batch = query.size(0);
  const int64_t tokens = query.size(2);
  const int64_t past_length = keys.size(2) - tokens;
  const auto joined = [&](const at::Tensor& output) { return output.transpose(1, 2).reshape({batch, tokens, -1}); };
  if (config.attention_softcap > 0.0 || terms.sinks.defined()) {
    const BlockMask open =
        terms.mask.causal ? BlockMask{causal_mask(tokens, past_length, query.scalar_type(), query.device())} : terms.mask;
    return joined(explicit_attention(config, terms.sinks, query, keys, values, open, terms.scale));
  }
  const at::Tensor& mask = terms.mask.mask;
  const std::optional<at::Tensor> given = mask.defined() ? std::optional(mask) : std::nullopt;
  const int64_t group = query.size(1) / keys.size(1);
  const bool same_for_heads = !given || given->size(1) == 1;
  if (tokens == 1 && group > 1 && same_for_heads) {
    // One new token: the query heads of a key head become its queries, which avoids copying the cache for each of them.
    const at::Tensor grouped = query.reshape({batch, keys.size(1), group, query.size(3)});
    return at::scaled_dot_product_attention(grouped, keys, values, given, 0.0, false, terms.scale).reshape({batch, 1, -1});
  }
  const auto attention = [&](const at::Tensor& k, const at::Tensor& v, bool grouped) {
    return joined(at::scaled_dot_product_attention(query, k, v, given, /*dropout_p=*/0.0, terms.mask.causal, terms.scale, grouped));
  };
  // On a GPU only flash attention knows groups of heads, and it wants half precision and no mask. Otherwise libtorch would keep all
  // logits in memory, [batch, heads, tokens, total]: keys and values for every head are far less.
  const bool no_groups = !query.is_cpu() && (query.scalar_type() == at::kFloat || given);
  if (group > 1 && no_groups) return attention(repeat_heads(keys, group), repeat_heads(values, group), false);
  return attention(keys, values, /*grouped=*/group > 1);
}

// Of a size of 1 that stands for all, itself.
at::Tensor part_of(const at::Tensor& x, int64_t dimension, int64_t begin, int64_t count) {
  return !x.defined() || x.size(dimension) == 1 ? x : x.narrow(dimension, begin, count);
}

// keys, values: int8 with scales.
at::Tensor attend_codes(const DecoderConfig& config, const AttentionTerms& terms, const at::Tensor& query,
                        const KeysAndValues& seen) {
  const int64_t batch = query.size(0);
  const int64_t kv_heads = seen.keys.size(1);
  const int64_t group = query.size(1) / kv_heads;
  const int64_t head_elements = seen.keys.size(2) * std::max(seen.keys.size(3), seen.values.size(3));
  const int64_t row_step = std::clamp<int64_t>(kUnpackedElements / head_elements, 1, batch);
  const int64_t head_step = std::clamp<int64_t>(kUnpackedElements / (head_elements * row_step), 1, kv_heads);
  const int64_t width = group * seen.values.size(3);
  at::Tensor output = at::empty({batch, query.size(2), kv_heads * width}, query.options());
  for (int64_t row = 0; row < batch; row += row_step) {
    const int64_t rows = std::min(row_step, batch - row);
    for (int64_t head = 0; head < kv_heads; head += head_step) {
      const int64_t heads = std::min(head_step, kv_heads - head);
      const auto unpacked = [&](const at::Tensor& codes, const at::Tensor& scales) {
        const auto of_part = [&](const at::Tensor& x) { return x.narrow(0, row, rows).narrow(1, head, heads); };
        return quant::from_int8_rows({of_part(codes), of_part(scales)}, query.scalar_type());
      };
      AttentionTerms part = terms;
      if (part.sinks.defined()) part.sinks = part.sinks.narrow(0, head * group, heads * group);
      if (part.mask.mask.defined()) part.mask.mask = part_of(part_of(part.mask.mask, 0, row, rows), 1, head * group, heads * group);
      const at::Tensor result = attend_float(config, part, query.narrow(0, row, rows).narrow(1, head * group, heads * group),
                                             unpacked(seen.keys, seen.key_scales), unpacked(seen.values, seen.value_scales));
      output.narrow(0, row, rows).narrow(2, head * width, heads * width).copy_(result);
    }
  }
  return output;
}

// Of 8 bits: what is written and what attention sees are the same numbers. Of a prompt without a past they are at hand in float.
KeysAndValues with_codes(const AttentionCall& call, const at::Tensor& keys, const at::Tensor& values) {
  const quant::Int8Rows key_rows = quant::to_int8_rows(keys, quant::kStableHalfRange, call.kv.key_scale);
  const quant::Int8Rows value_rows = quant::to_int8_rows(values, quant::kStableHalfRange, call.kv.value_scale);
  const int64_t total = call.past_length + keys.size(2);
  if (call.cache != nullptr) {
    const auto write = [&](const at::Tensor& to, const at::Tensor& from) {
      if (to.defined()) to.narrow(2, call.past_length, from.size(2)).copy_(from);
    };
    write(call.cache->keys, key_rows.codes);
    write(call.cache->values, value_rows.codes);
    write(call.cache->key_scales, key_rows.scales);
    write(call.cache->value_scales, value_rows.scales);
  }
  if (call.cache == nullptr || call.past_length == 0)
    return {quant::from_int8_rows(key_rows, keys.scalar_type()), quant::from_int8_rows(value_rows, values.scalar_type())};
  const auto scales = [&](const at::Tensor& own, const at::Tensor& stored) {
    return own.defined() ? own.narrow(2, 0, total) : stored.expand({keys.size(0), keys.size(1), total});
  };
  return {call.cache->keys.narrow(2, 0, total), call.cache->values.narrow(2, 0, total),
          scales(call.cache->key_scales, call.kv.key_scale), scales(call.cache->value_scales, call.kv.value_scale)};
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
                              at::Device device, const KvScheme& scheme) {
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
  const bool codes = scheme.bits == 8;
  layer.keys = at::empty({batch, sizes.heads, capacity, sizes.key}, options.dtype(codes ? at::kChar : dtype));
  layer.values = at::empty({batch, sizes.heads, capacity, sizes.value}, options.dtype(codes ? at::kChar : dtype));
  const auto own_scales = [&](const at::Tensor& stored) {
    return codes && !stored.defined() ? at::empty({batch, sizes.heads, capacity}, options.dtype(at::kFloat)) : at::Tensor();
  };
  layer.key_scales = own_scales(scheme.key_scale);
  layer.value_scales = own_scales(scheme.value_scale);
  return layer;
}

uint64_t cache_bytes_per_token(const DecoderConfig& config, at::ScalarType dtype, int kv_bits) {
  const HeadSizes sizes = cached_heads(config);
  uint64_t blocks = 0;
  for (const LayerConfig& layer : config.layers) blocks += layer.attention != AttentionKind::kLinear;
  const uint64_t head_bytes = kv_bits == 8 ? static_cast<uint64_t>(sizes.key + sizes.value) + 2 * sizeof(float)
                                           : static_cast<uint64_t>(sizes.key + sizes.value) * c10::elementSize(dtype);
  return blocks * static_cast<uint64_t>(sizes.heads) * head_bytes;
}

KeysAndValues with_cache(const AttentionCall& call, const at::Tensor& keys, const at::Tensor& values) {
  if (call.kv.bits == 8) return with_codes(call, keys, values);
  if (call.cache == nullptr) return {keys, values};
  const int64_t tokens = keys.size(2);
  call.cache->keys.narrow(2, call.past_length, tokens).copy_(keys);
  call.cache->values.narrow(2, call.past_length, tokens).copy_(values);
  return {call.cache->keys.narrow(2, 0, call.past_length + tokens), call.cache->values.narrow(2, 0, call.past_length + tokens)};
}

double AttentionCall::scale(int64_t head_dim) const {
  return config.attention_scale > 0.0 ? config.attention_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

at::Tensor attend(const AttentionCall& call, const at::Tensor& query, const KeysAndValues& seen, const BlockMask& mask) {
  const DecoderConfig& config = call.config;
  const int64_t tokens = query.size(2);
  const AttentionTerms terms = {call.weights.at(ParameterSlot::kSinks), mask, call.scale(query.size(3))};
  const bool plain = config.attention_softcap <= 0.0 && !terms.sinks.defined();
  if (tokens == 1 && plain) {
    if (at::Tensor output =
            decode_attention(query, seen.keys, seen.values, terms.mask.mask, terms.scale, seen.key_scales, seen.value_scales);
        output.defined())
      return output;
  }
  return seen.key_scales.defined() ? attend_codes(config, terms, query, seen)
                                   : attend_float(config, terms, query, seen.keys, seen.values);
}

at::Tensor attend_with_cache(const AttentionCall& call, const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values) {
  if (call.context.ragged != nullptr) return ragged_attention(call, query, keys, values);
  const KeysAndValues seen = with_cache(call, keys, values);
  const int64_t tokens = query.size(2);
  return attend(call, query, seen,
                select_mask(call.context, call.layer(), tokens, seen.keys.size(2) - tokens, query.scalar_type(), query.device()));
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
  at::Tensor attention = attend_with_cache(call, query, keys, clip(projected.values).transpose(1, 2));
  if (projected.gate.defined()) attention = attention * quant::elementwise(projected.gate, at::sigmoid);
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
