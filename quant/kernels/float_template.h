// Products of float32 rows with float32 weights for the structs of quant/kernels/tile_template.h, which here also have
//   kFloatRows, kFloatVectors                  rows and vectors of 16 channels whose sums fit into registers
//   transpose(from, stride, to, to_stride)     to[j][i] = from[i][j] for 16 x 16 numbers
// Each sum begins with 0 and takes its products one by one in the order of the input channels, fused where the instruction set has
// that. So its bits depend on nothing but its row and its channel: not on how many rows there are, where a tile is cut, how many
// threads there are, nor on which of the instruction sets with fused operations runs.
#pragma once

#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

constexpr int64_t kFloatInputStride = kFloatInputs + kTileChannels;  // rows begin in different sets of the first level cache
constexpr int64_t kFloatSumStride = kFloatTileChannels + kTileChannels;
constexpr int64_t kFloatPanelNumbers = kFloatScratch - kFloatTileRows * (kFloatInputStride + kFloatSumStride);

// 16 channels of `inputs` numbers each, turned: to[k][channel], `to_stride` apart. Channels that are not there are 0.
template <typename I>
void turn_channels(const float* from, int64_t stride, int64_t channels, int64_t inputs, float* to, int64_t to_stride) {
  int64_t k = 0;
  if (channels >= kTileChannels) {
    for (; k + kTileChannels <= inputs; k += kTileChannels) I::transpose(from + k, stride, to + k * to_stride, to_stride);
  }
  for (; k < inputs; ++k) {
    for (int64_t c = 0; c < kTileChannels; ++c) to[k * to_stride + c] = c < channels ? from[c * stride + k] : 0.0F;
  }
}

// sums[r][c] (+)= sum over k of rows[r][k] * weights[k][c] for R rows and V vectors of channels.
template <typename I, int R, int V>
void add_float_products(const float* rows, const float* weights, int64_t inputs, bool first, float* sums) {
  typename I::Float acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) acc[r][v] = first ? I::no_floats() : I::load(sums + r * kFloatSumStride + v * kTileChannels);
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
    for (int v = 0; v < V; ++v) I::store(acc[r][v], sums + r * kFloatSumStride + v * kTileChannels);
  }
}

// The same for `count` rows, at most R.
template <typename I, int R>
void add_float_rows(int64_t count, const float* rows, const float* weights, int64_t inputs, bool first, float* sums) {
  if (count == R) return add_float_products<I, R, I::kFloatVectors>(rows, weights, inputs, first, sums);
  if constexpr (R > 1) add_float_rows<I, R - 1>(count, rows, weights, inputs, first, sums);
}

template <typename I>
void float_tile(const FloatTile& tile, float* scratch) {
  constexpr int64_t kPanel = I::kFloatVectors * kTileChannels;
  static_assert(kPanel * kFloatInputs <= kFloatPanelNumbers && kFloatTileChannels % kPanel == 0);
  float* const rows = scratch;                                    // [kFloatTileRows][kFloatInputStride]
  float* const sums = rows + kFloatTileRows * kFloatInputStride;  // [kFloatTileRows][kFloatSumStride]
  float* const panel = sums + kFloatTileRows * kFloatSumStride;   // [inputs][kPanel]
  for (int64_t begin = 0; begin < tile.in_features; begin += kFloatInputs) {
    const int64_t inputs = tile.in_features - begin < kFloatInputs ? tile.in_features - begin : kFloatInputs;
    for (int64_t r = 0; r < tile.rows; ++r) {
      __builtin_memcpy(rows + r * kFloatInputStride, tile.x + r * tile.in_features + begin,
                       static_cast<uint64_t>(inputs) * sizeof(float));
    }
    for (int64_t c = 0; c < tile.channels; c += kPanel) {
      for (int64_t v = c; v < c + kPanel; v += kTileChannels) {
        turn_channels<I>(tile.weight + v * tile.weight_stride + begin, tile.weight_stride, tile.channels - v, inputs,
                         panel + (v - c), kPanel);
      }
      for (int64_t r = 0; r < tile.rows; r += I::kFloatRows) {
        const int64_t count = tile.rows - r < I::kFloatRows ? tile.rows - r : I::kFloatRows;
        add_float_rows<I, I::kFloatRows>(count, rows + r * kFloatInputStride, panel, inputs, begin == 0,
                                         sums + r * kFloatSumStride + c);
      }
    }
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    __builtin_memcpy(tile.y + r * tile.y_stride, sums + r * kFloatSumStride, static_cast<uint64_t>(tile.channels) * sizeof(float));
  }
}

}  // namespace
}  // namespace salient::quant
