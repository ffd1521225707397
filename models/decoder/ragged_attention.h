// Attention of a ragged batch (models/decoder/ragged_batch.h): each row sees its own past, or the batch's prefix, and itself.
#pragma once

#include "models/decoder/attention.h"

namespace salient::models {

// query: [1, heads, tokens, head_dim]; keys, values: [1, key heads, tokens, head_dim], of call.context.ragged's rows one after the
// other. Returns [1, tokens, heads * value head_dim]. Rows with a slot have their keys and values kept in the batch's cache;
// call.cache is not used.
at::Tensor ragged_attention(const AttentionCall& call, const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values);

}  // namespace salient::models
