// Attention of one new token over a cache.
//
// The library's operator turns every head of every row into products of its own with one or two rows, which costs several times
// what reading the cache does. Here each key and value is read once for all query heads that share it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/kernels/tile_kernels.h"

namespace salient::models {

// softmax(query keys^T * scale + mask) values, for one token of each row.
// query: [batch, heads, 1, head_dim]; keys: [batch, kv_heads, total, head_dim], values: [batch, kv_heads, total, value_dim], views
// of a cache; kv_heads divides heads (grouped-query attention: query heads in order share a key head). mask: added to the logits,
// [batch or 1, 1, 1, total], or undefined. key_scales, value_scales: float32 [batch, kv_heads, total] with any strides where keys
// and values are int8 codes (quant/int8_rows.h), else undefined. Codes become numbers in registers. Returns [batch, 1, heads *
// value_dim]; undefined where this way does not apply: only the CPU with contiguous channels does, and float keys and values only
// in float32.
at::Tensor decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask,
                            double scale, const at::Tensor& key_scales = {}, const at::Tensor& value_scales = {});

// One head of one row of a cache [rows, kv_heads, capacity, dim], float32 or int8 with scales: float32 [rows, kv_heads, capacity].
quant::CachedHead cached_head(const at::Tensor& cache, const at::Tensor& scales, int64_t row, int64_t head);

// Of one key head, in this thread. queries: `group` rows of keys.dim numbers, `query_stride` apart; mask: [total] or nullptr;
// shares: scratch of total for each of up to quant::kMaxQueries of the group; out: [group, values.dim].
void attend_to_head(const float* queries, int64_t query_stride, int64_t group, const quant::CachedHead& keys,
                    const quant::CachedHead& values, int64_t total, const float* mask, float scale, float* shares, float* out);

}  // namespace salient::models
