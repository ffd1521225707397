// Attention of a few queries over the cache of one head, for the structs of quant/kernels/tile_template.h, which here also have
//   load_codes(const int8_t*) -> Float    16 codes
//   kValueSums                            sums that fit into registers beside what else is needed
#pragma once

#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

template <typename I>
inline typename I::Float load_elements(const float* from) {
  return I::load(from);
}

template <typename I>
inline typename I::Float load_elements(const int8_t* from) {
  return I::load_codes(from);
}

// Each key is read once for R queries.
template <typename I, int R, typename Element>
void find_logits_of(const float* queries, int64_t query_stride, const Element* key, const CachedHead& keys, int64_t total,
                    float scale, float* logits) {
  const int64_t dim = keys.dim;
  for (int64_t token = 0; token < total; ++token, key += keys.stride) {
    typename I::Float acc[R];
    float rest[R] = {};
    for (int r = 0; r < R; ++r) acc[r] = I::no_floats();
    int64_t i = 0;
    for (; i + kTileChannels <= dim; i += kTileChannels) {
      const typename I::Float numbers = load_elements<I>(key + i);
      for (int r = 0; r < R; ++r) acc[r] = I::multiply_add(numbers, I::load(queries + r * query_stride + i), acc[r]);
    }
    for (; i < dim; ++i) {
      for (int r = 0; r < R; ++r) rest[r] += queries[r * query_stride + i] * static_cast<float>(key[i]);
    }
    const float factor = keys.scales == nullptr ? scale : scale * keys.scales[token * keys.scale_stride];
    for (int r = 0; r < R; ++r) logits[r * total + token] = (I::total(acc[r]) + rest[r]) * factor;
  }
}

// C times 16 channels from `value` on, of all tokens in order.
template <typename I, int R, int C, typename Element>
void sum_channels(const float* shares, const Element* value, const CachedHead& values, int64_t total, float* out) {
  typename I::Float acc[R][C];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) acc[r][c] = I::no_floats();
  }
  for (int64_t token = 0; token < total; ++token, value += values.stride) {
    typename I::Float numbers[C];
    for (int c = 0; c < C; ++c) numbers[c] = load_elements<I>(value + c * kTileChannels);
    const float scale = values.scales == nullptr ? 1.0F : values.scales[token * values.scale_stride];
    for (int r = 0; r < R; ++r) {
      const typename I::Float factor = I::splat(shares[r * total + token] * scale);
      for (int c = 0; c < C; ++c) acc[r][c] = I::multiply_add(factor, numbers[c], acc[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) I::store(acc[r][c], out + r * values.dim + c * kTileChannels);
  }
}

template <typename I, int R, typename Element>
void sum_values_of(const float* shares, const Element* value, const CachedHead& values, int64_t total, float* out) {
  constexpr int kSums = I::kValueSums / R > 0 ? I::kValueSums / R : 1;
  int64_t i = 0;
  for (; i + kSums * kTileChannels <= values.dim; i += kSums * kTileChannels)
    sum_channels<I, R, kSums>(shares, value + i, values, total, out + i);
  for (; i + kTileChannels <= values.dim; i += kTileChannels) sum_channels<I, R, 1>(shares, value + i, values, total, out + i);
  for (; i < values.dim; ++i) {
    for (int r = 0; r < R; ++r) {
      float sum = 0.0F;
      for (int64_t token = 0; token < total; ++token) {
        const float scale = values.scales == nullptr ? 1.0F : values.scales[token * values.scale_stride];
        sum += shares[r * total + token] * scale * static_cast<float>(value[token * values.stride + i]);
      }
      out[r * values.dim + i] = sum;
    }
  }
}

// of(R, element) for the number of queries and the kind of cache.
template <typename Of>
void for_kind(int64_t queries, const CachedHead& head, Of of) {
  const auto with = [&](const auto* elements) {
    if (queries == 1) return of.template operator()<1>(elements);
    if (queries == 2) return of.template operator()<2>(elements);
    if (queries == 3) return of.template operator()<3>(elements);
    of.template operator()<4>(elements);
  };
  if (head.codes != nullptr) return with(head.codes);
  with(head.numbers);
}

template <typename I>
void find_logits(const float* queries, int64_t query_stride, int64_t count, const CachedHead& keys, int64_t total, float scale,
                 float* logits) {
  for_kind(count, keys,
           [&]<int R>(const auto* key) { find_logits_of<I, R>(queries, query_stride, key, keys, total, scale, logits); });
}

template <typename I>
void sum_values(const float* shares, int64_t count, const CachedHead& values, int64_t total, float* out) {
  for_kind(count, values, [&]<int R>(const auto* value) { sum_values_of<I, R>(shares, value, values, total, out); });
}

}  // namespace
}  // namespace salient::quant
