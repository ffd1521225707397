// Attention of one new token over a cache.
//
// The library's operator turns every head of every row into products of its own with one or two rows, which costs several times what
// reading the cache does. Here each key and value is read once for all query heads that share it.
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::models {

// softmax(query keys^T * scale + mask) values, for one token of each row.
// query: [batch, heads, 1, head_dim]; keys: [batch, kv_heads, total, head_dim], values: [batch, kv_heads, total, value_dim], views of a cache; kv_heads divides heads (grouped-query attention:
// query heads in order share a key head). mask: added to the logits, [batch or 1, 1, 1, total], or undefined.
// Returns [batch, 1, heads * value_dim]; undefined where this way does not apply: only float32 on the CPU with contiguous channels does.
at::Tensor decode_attention(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask, double scale);

}  // namespace salient::models
