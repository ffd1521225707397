// Attention of one block, from its normalized input to o_proj's output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "models/decoder/attention_context.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

// How keys and values are kept: as computed (bits 16), or as int8 codes (bits 8, quant/int8_rows.h). A scale is one float32 for
// each token and head, found when it is written: of the granularities in use (KIVI, arXiv 2402.02750, llama.cpp's blocks of 32) the
// one that needs no look at other tokens, so that what is written stays. In float32, because 4 bytes beside 64 or more of codes are
// cheap and nothing is lost or out of range; with heads of 64 numbers the cache has 0.266 of float32's size, with 128 it has 0.258.
// Or a stored scale of all tokens, as compressed-tensors' kv_cache_scheme has it.
struct KvScheme {
  int bits = 16;
  at::Tensor key_scale;    // float32 [1 or key heads, 1]; undefined: each token and head its own
  at::Tensor value_scale;  // the same
};

// What a block keeps of past tokens.
struct KvCacheLayer {
  at::Tensor keys;    // [batch, key heads, capacity, head_dim], of which `past_length` are filled; undefined for linear attention.
                      // int8 with 8 bits
  at::Tensor values;  // [batch, key heads, capacity, value head_dim]
  at::Tensor key_scales;    // float32 [batch, key heads, capacity] of int8 keys with scales of their own, else undefined
  at::Tensor value_scales;  // the same
  at::Tensor convolution;   // linear attention: the last inputs of the convolution, [batch, channels, width]
  at::Tensor recurrent;     // linear attention: state, float32 [batch, value heads, key_head_dim, value_head_dim]
};

KvCacheLayer make_cache_layer(const DecoderConfig& config, int64_t block, int64_t batch, int64_t capacity, at::ScalarType dtype,
                              at::Device device, const KvScheme& scheme = {});
// Bytes of one token of one row in all blocks. With 8 bits, with a scale for each token and head.
uint64_t cache_bytes_per_token(const DecoderConfig& config, at::ScalarType dtype, int kv_bits = 16);

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
  KvScheme kv = {};  // with 8 bits, keys and values are rounded whether there is a cache or not

  // Factor of the logits.
  double scale(int64_t head_dim) const;
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

// Puts this call's keys and values into the cache, where there is one, and returns all that attention should see: float, or the
// cache's codes with their scales. keys, values: [batch, key heads, tokens, head_dim].
struct KeysAndValues {
  at::Tensor keys;
  at::Tensor values;
  at::Tensor key_scales = {};  // float32 [batch, key heads, tokens] where the keys are int8, else undefined
  at::Tensor value_scales = {};
};
KeysAndValues with_cache(const AttentionCall& call, const at::Tensor& keys, const at::Tensor& values);

// Softmax attention of query [batch, heads, tokens, head_dim] -> [batch, tokens, heads * value head_dim]: scale, soft-cap, mask,
// window and sinks as the configuration has them. Codes are read as they are for one new token, where decode_attention has a way;
// else a few heads of a few rows at a time are made float, at most kUnpackedElements numbers of keys (one head of one row, where
// that has more).
inline constexpr int64_t kUnpackedElements = int64_t{1} << 22;
at::Tensor attend(const AttentionCall& call, const at::Tensor& query, const KeysAndValues& seen, const BlockMask& mask);

// Both, for all rows of the call: keys and values of its tokens are kept where there is a cache, and its queries attend to them and
// to what was kept before.
at::Tensor attend_with_cache(const AttentionCall& call, const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values);

}  // namespace salient::models
