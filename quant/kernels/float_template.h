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

// What add_float_products does with the sums that it finds.
struct FloatSums {
  float* at;  // [rows][channels], stride apart
  int64_t stride;
  bool goes_on;  // begins with what is there instead of 0
  bool adds;     // adds share times its sum to what is there instead of storing it
  float share;
};

// Sums over k of rows[r][k] * weights[k][c], for R rows and V vectors of channels. weights: weight_stride apart.
template <typename I, int R, int V>
void add_float_products(const float* rows, const float* weights, int64_t weight_stride, int64_t inputs, const FloatSums& sums) {
  typename I::Float acc[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) acc[r][v] = sums.goes_on ? I::load(sums.at + r * sums.stride + v * kTileChannels) : I::no_floats();
  }
  for (int64_t k = 0; k < inputs; ++k) {
    typename I::Float weight[V];
    for (int v = 0; v < V; ++v) weight[v] = I::load(weights + k * weight_stride + v * kTileChannels);
    for (int r = 0; r < R; ++r) {
      const typename I::Float x = I::splat(rows[r * kFloatInputStride + k]);
      for (int v = 0; v < V; ++v) acc[r][v] = I::multiply_add(x, weight[v], acc[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      float* const to = sums.at + r * sums.stride + v * kTileChannels;
      I::store(sums.adds ? I::multiply_add(I::splat(sums.share), acc[r][v], I::load(to)) : acc[r][v], to);
    }
  }
}

// The same for `count` rows, at most R.
template <typename I, int R>
void add_float_rows(int64_t count, const float* rows, const float* weights, int64_t weight_stride, int64_t inputs,
                    const FloatSums& sums) {
  if (count == R) return add_float_products<I, R, I::kFloatVectors>(rows, weights, weight_stride, inputs, sums);
  if constexpr (R > 1) add_float_rows<I, R - 1>(count, rows, weights, weight_stride, inputs, sums);
}

inline void copy_floats(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r)
    __builtin_memcpy(to + r * to_stride, from + r * from_stride, static_cast<uint64_t>(columns) * sizeof(float));
}

// to += share * from
template <typename I>
void add_floats(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float share, float* to, int64_t to_stride) {
  const auto add = [&](const float* number, float* sum) {
    I::store(I::multiply_add(I::splat(share), I::load(number), I::load(sum)), sum);
  };
  for (int64_t r = 0; r < rows; ++r) {
    const float* const numbers = from + r * from_stride;
    float* const sums = to + r * to_stride;
    int64_t c = 0;
    for (; c + kTileChannels <= columns; c += kTileChannels) add(numbers + c, sums + c);
    if (c == columns) continue;
    float rest[kTileChannels] = {};
    copy_floats(sums + c, 0, 1, columns - c, rest, 0);
    add(numbers + c, rest);  // behind `numbers` more may be read: it has room for whole vectors
    copy_floats(rest, 0, 1, columns - c, sums + c, 0);
  }
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
          for (int r = 0; r < R; ++r) acc[r] = I::multiply_add(I::splat(tile.x[r * tile.x_stride + first + j]), turned[j], acc[r]);
        }
      };
      k = turn_steps<I>(weight, tile.weight_stride, tile.in_features, add);
    }
    float lanes[kTileChannels] = {};
    for (; k < tile.in_features; ++k) {
      for (int64_t i = 0; i < channels; ++i) lanes[i] = weight[i * tile.weight_stride + k];
      for (int r = 0; r < R; ++r) acc[r] = I::multiply_add(I::splat(tile.x[r * tile.x_stride + k]), I::load(lanes), acc[r]);
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

// [rows][inputs] of the tile's rows from input `begin` on, kFloatInputStride apart.
template <typename I>
void gather_rows(const FloatTile& tile, int64_t begin, int64_t inputs, float* to) {
  if (!tile.x_turned) return copy_floats(tile.x + begin, tile.x_stride, tile.rows, inputs, to, kFloatInputStride);
  const float* const from = tile.x + begin * tile.x_stride;
  for (int64_t k = 0; k < inputs; k += kTileChannels) {
    const int64_t count = inputs - k < kTileChannels ? inputs - k : kTileChannels;
    turn_channels<I>(from + k * tile.x_stride, tile.x_stride, count, tile.rows, to + k, kFloatInputStride);
  }
}

// [inputs][kPanel] of the tile's weights from input `begin` and channel c on. Channels that are not there are 0.
template <typename I, int64_t kPanel>
void gather_panel(const FloatTile& tile, int64_t c, int64_t begin, int64_t inputs, float* to) {
  const int64_t channels = tile.channels - c < kPanel ? tile.channels - c : kPanel;
  if (tile.weight_turned) {
    const float* const from = tile.weight + begin * tile.weight_stride + c;
    for (int64_t k = 0; k < inputs; ++k) {
      const float* const row = from + k * tile.weight_stride;
      for (int64_t v = 0; v < kPanel; v += kTileChannels) {
        if (channels == kPanel) {
          I::store(I::load(row + v), to + k * kPanel + v);
        } else {
          for (int64_t i = v; i < v + kTileChannels; ++i) to[k * kPanel + i] = i < channels ? row[i] : 0.0F;
        }
      }
    }
  } else {
    for (int64_t v = 0; v < kPanel; v += kTileChannels) {
      turn_channels<I>(tile.weight + (c + v) * tile.weight_stride + begin, tile.weight_stride, channels - v, inputs, to + v,
                       kPanel);
    }
  }
  if (tile.diagonal < 0) return;
  for (int64_t v = 0; v < kPanel; ++v) {
    const int64_t on = tile.diagonal + c + v - begin;
    if (on >= 0 && on < inputs) to[on * kPanel + v] *= 0.5F;
    for (int64_t k = on < 0 ? 0 : on + 1; k < inputs; ++k) to[k * kPanel + v] = 0;
  }
}

// Asks for a share of the numbers that gather_panel will read: they lie in rows far from each other, which the processor does not
// see coming.
template <int64_t kPanel>
void ask_for_panel(const FloatTile& tile, int64_t c, int64_t begin, int64_t inputs, int64_t share, int64_t shares) {
  constexpr int64_t kLine = kLineBytes / 4;
  const int64_t channels = tile.channels - c < kPanel ? tile.channels - c : kPanel;
  const int64_t far = tile.weight_turned ? inputs : channels;
  const int64_t lines = ((tile.weight_turned ? channels : inputs) + kLine - 1) / kLine;
  const float* const from = tile.weight + (tile.weight_turned ? begin * tile.weight_stride + c : c * tile.weight_stride + begin);
  const int64_t last = (share + 1) * far / shares;
  for (int64_t i = share * far / shares; i < last; ++i) {
    for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(from + i * tile.weight_stride + line * kLine, 0, 2);
  }
}

template <typename I>
void float_tile(const FloatTile& tile, float* scratch) {
  const bool plain = !tile.x_turned && !tile.weight_turned && !tile.adds && tile.diagonal < 0;
  if (plain && tile.rows <= kFewFloatRows) return few_float_rows<I, kFewFloatRows>(tile);
  constexpr int64_t kPanel = I::kFloatVectors * kTileChannels;
  static_assert(kPanel * kFloatInputs <= kFloatPanelNumbers && kFloatTileChannels % kPanel == 0);
  float* const rows = scratch;                                    // [kFloatTileRows][kFloatInputStride]
  float* const sums = rows + kFloatTileRows * kFloatInputStride;  // [kFloatTileRows][kFloatSumStride]
  float* const panel = sums + kFloatTileRows * kFloatSumStride;   // [inputs][kPanel]
  // Sums that are whole after one step go to where they belong, but for a panel that the channels do not fill.
  const bool one_step = tile.in_features <= kFloatInputs;
  const int64_t direct = one_step ? tile.channels / kPanel * kPanel : 0;
  // Weights that few rows use need not be copied before.
  const bool in_place = tile.weight_turned && tile.rows <= I::kFloatRows && tile.diagonal < 0;
  for (int64_t begin = 0; begin < tile.in_features; begin += kFloatInputs) {
    const int64_t inputs = tile.in_features - begin < kFloatInputs ? tile.in_features - begin : kFloatInputs;
    gather_rows<I>(tile, begin, inputs, rows);
    for (int64_t c = 0; c < tile.channels; c += kPanel) {
      int64_t used = inputs;  // below the diagonal nothing counts
      if (tile.diagonal >= 0 && tile.diagonal + c + kPanel - begin < inputs) used = tile.diagonal + c + kPanel - begin;
      if (used <= 0) continue;
      const bool copied = !in_place || tile.channels - c < kPanel;
      if (copied) gather_panel<I, kPanel>(tile, c, begin, used, panel);
      const float* const weights = copied ? panel : tile.weight + begin * tile.weight_stride + c;
      const bool is_direct = c < direct;
      FloatSums to{is_direct ? tile.y + c : sums + (c - direct), is_direct ? tile.y_stride : kFloatSumStride, begin > 0,
                   tile.adds && is_direct, tile.share};
      for (int64_t r = 0; r < tile.rows; r += I::kFloatRows, to.at += I::kFloatRows * to.stride) {
        if (c + kPanel < tile.channels)
          ask_for_panel<kPanel>(tile, c + kPanel, begin, inputs, r / I::kFloatRows,
                                (tile.rows + I::kFloatRows - 1) / I::kFloatRows);
        if (tile.wanted == Triangle::kUpper && r >= c + kPanel) continue;
        if (tile.wanted == Triangle::kLower && r + I::kFloatRows <= c) continue;
        const int64_t count = tile.rows - r < I::kFloatRows ? tile.rows - r : I::kFloatRows;
        add_float_rows<I, I::kFloatRows>(count, rows + r * kFloatInputStride, weights, copied ? kPanel : tile.weight_stride, used,
                                         to);
      }
    }
  }
  const int64_t rest = tile.channels - direct;
  if (tile.adds) {
    add_floats<I>(sums, kFloatSumStride, tile.rows, rest, tile.share, tile.y + direct, tile.y_stride);
  } else {
    copy_floats(sums, kFloatSumStride, tile.rows, rest, tile.y + direct, tile.y_stride);
  }
}

}  // namespace
}  // namespace salient::quant
