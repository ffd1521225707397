// Products of float32 rows with float32 weights for the structs of quant/kernels/tile_template.h, which here also have
//   kFloatRows, kFloatVectors                  rows and vectors of 16 channels whose sums fit into registers
//   turn(from, stride, Float (&to)[kTurned])   lane i of to[j] = from[i * stride + j]
// Each sum begins with 0 and takes its products one by one in the order of the input channels, fused where the instruction set has
// that. So its bits depend on nothing but its row and its channel: not on how many rows there are, where a tile is cut, how many
// threads there are, nor on which of the instruction sets with fused operations runs.
#pragma once

#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

constexpr int64_t kFloatInputStride = kFloatInputs + kTileChannels;  // rows begin in different sets of the first level cache
constexpr int kFewFloatRows = 4;
constexpr int64_t kFloatSumStride = kFloatTileChannels + kTileChannels;
constexpr int64_t kFloatPanelNumbers = kFloatScratch - kFloatTileRows * (kFloatInputStride + kFloatSumStride);

// use(k, Float (&turned)[kTurned]) for k, in steps of kTurned, of 16 channels; returns how many inputs those were.
template <typename I, typename Use>
int64_t turn_steps(const float* from, int64_t stride, int64_t inputs, Use use) {
  int64_t k = 0;
  for (; k + I::kTurned <= inputs; k += I::kTurned) {
    typename I::Float turned[I::kTurned];
    I::turn(from + k, stride, turned);
    use(k, turned);
  }
  return k;
}

// 16 channels of `inputs` numbers each, turned: to[k][channel], `to_stride` apart. Channels that are not there are 0.
template <typename I>
void turn_channels(const float* from, int64_t stride, int64_t channels, int64_t inputs, float* to, int64_t to_stride) {
  int64_t k = 0;
  if (channels >= kTileChannels) {
    k = turn_steps<I>(from, stride, inputs, [&](int64_t first, const typename I::Float(&turned)[I::kTurned]) {
      for (int j = 0; j < I::kTurned; ++j) I::store(turned[j], to + (first + j) * to_stride);
    });
  }
  for (; k < inputs; ++k) {
    for (int64_t c = 0; c < kTileChannels; ++c) to[k * to_stride + c] = c < channels ? from[c * stride + k] : 0.0F;
  }
}

// sums[r][c] (+)= sum over k of rows[r][k] * weights[k][c] for R rows and V vectors of channels.
template <typename I, int R, int V>
void add_float_products(const float* rows, const float* weights, int64_t inputs, bool first, float* sums, int64_t stride) {
  typename I::Float acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) acc[r][v] = first ? I::no_floats() : I::load(sums + r * stride + v * kTileChannels);
  }
  for (int64_t k = 0; k < inputs; ++k) {
    typename I::Float weight[V];
    for (int v = 0; v < V; ++v) weight[v] = I::load(weights + (k * V + v) * kTileChannels);
    for (int r = 0; r < R; ++r) {
      const typename I::Float x = I::splat(rows[r * kFloatInputStride + k]);
      for (int v = 0; v < V; ++v) acc[r][v] = I::multiply_add(x, weight[v], acc[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) I::store(acc[r][v], sums + r * stride + v * kTileChannels);
  }
}

// The same for `count` rows, at most R.
template <typename I, int R>
void add_float_rows(int64_t count, const float* rows, const float* weights, int64_t inputs, bool first, float* sums,
                    int64_t stride) {
  if (count == R) return add_float_products<I, R, I::kFloatVectors>(rows, weights, inputs, first, sums, stride);
  if constexpr (R > 1) add_float_rows<I, R - 1>(count, rows, weights, inputs, first, sums, stride);
}

inline void copy_floats(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r)
    __builtin_memcpy(to + r * to_stride, from + r * from_stride, static_cast<uint64_t>(columns) * sizeof(float));
}

// All of a tile of R rows: weights are turned in registers, which is faster where each is used R times alone.
template <typename I, int R>
void multiply_float_rows(const FloatTile& tile) {
  for (int64_t c = 0; c < tile.channels; c += kTileChannels) {
    const int64_t channels = tile.channels - c < kTileChannels ? tile.channels - c : kTileChannels;
    const float* const weight = tile.weight + c * tile.weight_stride;
    typename I::Float acc[R];
    for (int r = 0; r < R; ++r) acc[r] = I::no_floats();
    int64_t k = 0;
    if (channels == kTileChannels) {
      const auto add = [&](int64_t first, const typename I::Float(&turned)[I::kTurned]) {
        for (int j = 0; j < I::kTurned; ++j) {
          for (int r = 0; r < R; ++r)
            acc[r] = I::multiply_add(I::splat(tile.x[r * tile.in_features + first + j]), turned[j], acc[r]);
        }
      };
      k = turn_steps<I>(weight, tile.weight_stride, tile.in_features, add);
    }
    float lanes[kTileChannels] = {};
    for (; k < tile.in_features; ++k) {
      for (int64_t i = 0; i < channels; ++i) lanes[i] = weight[i * tile.weight_stride + k];
      for (int r = 0; r < R; ++r) acc[r] = I::multiply_add(I::splat(tile.x[r * tile.in_features + k]), I::load(lanes), acc[r]);
    }
    for (int r = 0; r < R; ++r) {
      I::store(acc[r], lanes);
      copy_floats(lanes, 0, 1, channels, tile.y + r * tile.y_stride + c, 0);
    }
  }
}

// The same for tile.rows, at most R.
template <typename I, int R>
void few_float_rows(const FloatTile& tile) {
  if (tile.rows == R) return multiply_float_rows<I, R>(tile);
  if constexpr (R > 1) few_float_rows<I, R - 1>(tile);
}

template <typename I>
void float_tile(const FloatTile& tile, float* scratch) {
  if (tile.rows <= kFewFloatRows) return few_float_rows<I, kFewFloatRows>(tile);
  constexpr int64_t kPanel = I::kFloatVectors * kTileChannels;
  static_assert(kPanel * kFloatInputs <= kFloatPanelNumbers && kFloatTileChannels % kPanel == 0);
  float* const rows = scratch;                                    // [kFloatTileRows][kFloatInputStride]
  float* const sums = rows + kFloatTileRows * kFloatInputStride;  // [kFloatTileRows][kFloatSumStride]
  float* const panel = sums + kFloatTileRows * kFloatSumStride;   // [inputs][kPanel]
  // Sums that are whole after one step go to where they belong, but for a panel that the channels do not fill.
  const bool one_step = tile.in_features <= kFloatInputs;
  const int64_t direct = one_step ? tile.channels / kPanel * kPanel : 0;
  for (int64_t begin = 0; begin < tile.in_features; begin += kFloatInputs) {
    const int64_t inputs = tile.in_features - begin < kFloatInputs ? tile.in_features - begin : kFloatInputs;
    copy_floats(tile.x + begin, tile.in_features, tile.rows, inputs, rows, kFloatInputStride);
    for (int64_t c = 0; c < tile.channels; c += kPanel) {
      for (int64_t v = 0; v < kPanel; v += kTileChannels) {
        turn_channels<I>(tile.weight + (c + v) * tile.weight_stride + begin, tile.weight_stride, tile.channels - c - v, inputs,
                         panel + v, kPanel);
      }
      float* const to = c < direct ? tile.y + c : sums + (c - direct);
      const int64_t stride = c < direct ? tile.y_stride : kFloatSumStride;
      for (int64_t r = 0; r < tile.rows; r += I::kFloatRows) {
        const int64_t count = tile.rows - r < I::kFloatRows ? tile.rows - r : I::kFloatRows;
        add_float_rows<I, I::kFloatRows>(count, rows + r * kFloatInputStride, panel, inputs, begin == 0, to + r * stride, stride);
      }
    }
  }
  copy_floats(sums, kFloatSumStride, tile.rows, tile.channels - direct, tile.y + direct, tile.y_stride);
}

}  // namespace
}  // namespace salient::quant
