// Attention of one block, from its normalized input to o_proj's output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "models/decoder/attention_context.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

// What a block keeps of past tokens.
struct KvCacheLayer {
  at::Tensor keys;    // [batch, key heads, capacity, head_dim], of which `past_length` are filled; undefined for linear attention
  at::Tensor values;  // [batch, key heads, capacity, value head_dim]
  at::Tensor convolution;  // linear attention: the last inputs of the convolution, [batch, channels, width]
  at::Tensor recurrent;    // linear attention: state, float32 [batch, value heads, key_head_dim, value_head_dim]
};

KvCacheLayer make_cache_layer(const DecoderConfig& config, int64_t block, int64_t batch, int64_t capacity, at::ScalarType dtype, at::Device device);
// Bytes of one token of one row, and bytes of one row whatever its length.
uint64_t cache_bytes_per_token(const DecoderConfig& config, at::ScalarType dtype);

// Called with the input of linears, of shape [batch, tokens, features] ([rows, features] for experts).
using BlockObserver = std::function<void(InputId input, const at::Tensor& x)>;

struct AttentionCall {
  const DecoderConfig& config;
  const BlockWeights& weights;
  int64_t block = 0;
  const AttentionContext& context;
  KvCacheLayer* cache = nullptr;  // with one, this call's keys and values are written at past_length
  int64_t past_length = 0;
  const BlockObserver& observer;

  const LayerConfig& layer() const { return config.layers[static_cast<size_t>(block)]; }
  void observe(InputSlot slot, const at::Tensor& x) const {
    if (observer) observer({slot, kDenseMlp}, x);
  }
};

// x: [batch, tokens, hidden_size] -> the same shape. Chooses by the layer's kind. Observes kAttentionInput and what follows it.
at::Tensor attention_forward(const AttentionCall& call, const at::Tensor& x);

// The kinds; see their files.
at::Tensor standard_attention(const AttentionCall& call, const at::Tensor& x);
at::Tensor latent_attention(const AttentionCall& call, const at::Tensor& x);
at::Tensor linear_attention(const AttentionCall& call, const at::Tensor& x);

// Puts this call's keys and values into the cache, where there is one, and returns all that attention should see.
// keys, values: [batch, key heads, tokens, head_dim].
struct KeysAndValues {
  at::Tensor keys;
  at::Tensor values;
};
KeysAndValues with_cache(const AttentionCall& call, const at::Tensor& keys, const at::Tensor& values);

// Softmax attention of query [batch, heads, tokens, head_dim] -> [batch, tokens, heads * value head_dim]: scale, soft-cap, mask, window and sinks as
// the configuration has them.
at::Tensor attend(const AttentionCall& call, const at::Tensor& query, const KeysAndValues& seen);

}  // namespace salient::models
