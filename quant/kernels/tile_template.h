// The loops that all instruction sets share. `I` is a struct of static functions on 16 lanes, one for each channel of a tile:
//   Int, Float                                    16 lanes of int32 or float32
//   load_zeros(bytes) -> Int                      16 bytes, widened
//   negative_product(Int, int32_t) -> Int         -(lanes * value)
//   to_float(Int) -> Float                        rounded to nearest even
//   no_floats(), load, store, splat, add, multiply, multiply_add, total
//   load_float16, load_bfloat16(values) -> Float  16 stored halves
//   add_dots<Bits, R>(...), add_panel<Bits, C>    see below
// Floats are multiplied, then added, never fused, but for multiply_add: an integer product has the same bits on every processor.
#pragma once

#include "quant/kernels/attention_template.h"
#include "quant/kernels/float_template.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

constexpr int64_t kLanes = kTileChannels;

// What comes with the codes of the group that few_rows will have reached kPrefetchBytes later.
inline void prefetch_group(const WeightView& w, int64_t index) {
  const int64_t first = (index + kPrefetchGroups) * kLanes;
  __builtin_prefetch(w.zeros + first, 0, 2);
  __builtin_prefetch(static_cast<const uint8_t*>(w.scales) + first * (w.scale_type == ScaleType::kFloat32 ? 4 : 2), 0, 2);
}

template <typename I>
inline typename I::Float load_scales(const WeightView& w, int64_t index) {
  const int64_t first = index * kLanes;
  if (w.scale_type == ScaleType::kFloat16) return I::load_float16(static_cast<const uint16_t*>(w.scales) + first);
  if (w.scale_type == ScaleType::kBfloat16) return I::load_bfloat16(static_cast<const uint16_t*>(w.scales) + first);
  return I::load(static_cast<const float*>(w.scales) + first);
}

// Channels of a tile that exist.
inline int64_t channels_of(const WeightView& w, int64_t tile) {
  const int64_t left = w.out_features - tile * kLanes;
  return left < kLanes ? left : kLanes;
}

template <typename I>
inline void store_channels(typename I::Float values, int64_t channels, float* to) {
  if (channels == kLanes) return I::store(values, to);
  float buffer[kLanes];
  I::store(values, buffer);
  for (int64_t c = 0; c < channels; ++c) to[c] = buffer[c];
}

// I::add_dots<Bits, R>(codes, padded_group, x, stride, acc): acc[r] += codes of one group times x + r * stride, for R rows.
template <typename I, int Bits, int R>
void product_few(const WeightView& w, const RowsView& x, int64_t begin, int64_t end, float* y) {
  const int64_t width = w.groups * w.padded_group;
  const int64_t group_bytes = w.padded_group * kLanes * Bits / 8;
  for (int64_t tile = begin; tile < end; ++tile) {
    typename I::Float total[R];
    for (int r = 0; r < R; ++r) total[r] = I::no_floats();
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t index = tile * w.groups + g;
      prefetch_group(w, index);
      const typename I::Int zeros = I::load_zeros(w.zeros + index * kLanes);
      typename I::Int acc[R];
      for (int r = 0; r < R; ++r) acc[r] = I::negative_product(zeros, x.sums[r * w.groups + g]);
      I::template add_dots<Bits, R>(w.codes + index * group_bytes, w.padded_group, x.codes + g * w.padded_group, width, acc);
      const typename I::Float scales = load_scales<I>(w, index);
      for (int r = 0; r < R; ++r) total[r] = I::add(total[r], I::multiply(I::to_float(acc[r]), scales));
    }
    for (int r = 0; r < R; ++r) {
      store_channels<I>(I::multiply(total[r], I::splat(x.scales[r])), channels_of(w, tile), y + r * w.out_features + tile * kLanes);
    }
  }
}

template <typename I, int Bits>
void product_few_rows(const WeightView& w, const RowsView& x, int64_t begin, int64_t end, float* y) {
  if (x.rows == 1) return product_few<I, Bits, 1>(w, x, begin, end, y);
  if (x.rows == 2) return product_few<I, Bits, 2>(w, x, begin, end, y);
  if (x.rows == 3) return product_few<I, Bits, 3>(w, x, begin, end, y);
  product_few<I, Bits, 4>(w, x, begin, end, y);
}

template <typename I>
void few_rows(const WeightView& w, const RowsView& x, int64_t begin, int64_t end, float* y) {
  if (w.bits == 4) return product_few_rows<I, 4>(w, x, begin, end, y);
  product_few_rows<I, 8>(w, x, begin, end, y);
}

// One code in a byte, in lines of 4 input channels.
inline void unpack_lines(const uint8_t* packed, int64_t lines, uint8_t* to) {
  for (int64_t line = 0; line < lines; ++line) {
    for (int64_t i = 0; i < kLineBytes; ++i) {
      to[2 * line * kLineBytes + i] = packed[line * kLineBytes + i] & 15;
      to[(2 * line + 1) * kLineBytes + i] = packed[line * kLineBytes + i] >> 4;
    }
  }
}

// I::add_panel<Bits, C>(codes, steps, x, acc): acc[c][r] += codes[c] times one panel of x, over `steps` lines of 4 input channels;
// codes[c] has one code in a byte, which is at most 15 where Bits is 4.
template <typename I, int Bits, int C>
void product_block(const WeightView& w, const PanelsView& x, int64_t tile, int64_t first_panel, int64_t last_panel, float* totals,
                   uint8_t* unpacked, float* y) {
  constexpr int64_t kRows = I::kPanelRows;
  const int64_t group_bytes = w.padded_group * kLanes * Bits / 8;
  const int64_t steps = w.padded_group / 4;
  for (int64_t i = 0; i < (last_panel - first_panel) * kRows * C; ++i) I::store(I::no_floats(), totals + i * kLanes);
  for (int64_t g = 0; g < w.groups; ++g) {
    const uint8_t* codes[C];
    typename I::Float scales[C];
    const uint8_t* zeros[C];
    for (int c = 0; c < C; ++c) {
      const int64_t index = (tile + c) * w.groups + g;
      codes[c] = w.codes + index * group_bytes;
      if constexpr (Bits == 4) {
        uint8_t* to = unpacked + c * w.padded_group * kLanes;
        unpack_lines(codes[c], w.padded_group / kGroupAlign, to);
        codes[c] = to;
      }
      scales[c] = load_scales<I>(w, index);
      zeros[c] = w.zeros + index * kLanes;
    }
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const int64_t index = panel * w.groups + g;
      typename I::Int acc[C][kRows];
      for (int c = 0; c < C; ++c) {
        const typename I::Int zero = I::load_zeros(zeros[c]);
        for (int64_t r = 0; r < kRows; ++r) acc[c][r] = I::negative_product(zero, x.sums[index * kRows + r]);
      }
      I::template add_panel<Bits, C>(codes, steps, x.codes + index * w.padded_group * kRows, acc);
      float* to = totals + (panel - first_panel) * kRows * C * kLanes;
      for (int c = 0; c < C; ++c) {
        for (int64_t r = 0; r < kRows; ++r, to += kLanes)
          I::store(I::add(I::load(to), I::multiply(I::to_float(acc[c][r]), scales[c])), to);
      }
    }
  }
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    for (int c = 0; c < C; ++c) {
      const float* from = totals + ((panel - first_panel) * C + c) * kRows * kLanes;
      for (int64_t r = 0; r < kRows && panel * kRows + r < x.rows; ++r, from += kLanes) {
        const int64_t row = panel * kRows + r;
        store_channels<I>(I::multiply(I::load(from), I::splat(x.scales[row])), channels_of(w, tile + c),
                          y + row * w.out_features + (tile + c) * kLanes);
      }
    }
  }
}

template <typename I, int Bits>
void product_many_rows(const WeightView& w, const PanelsView& x, int64_t begin, int64_t end, float* totals, uint8_t* unpacked,
                       float* y) {
  const int64_t panels = (x.rows + I::kPanelRows - 1) / I::kPanelRows;
  constexpr int64_t kBlock = I::kBlockRows / I::kPanelRows;
  for (int64_t first = 0; first < panels; first += kBlock) {
    const int64_t last = first + kBlock < panels ? first + kBlock : panels;
    int64_t tile = begin;
    for (; tile + I::kPanelTiles <= end; tile += I::kPanelTiles) {
      product_block<I, Bits, I::kPanelTiles>(w, x, tile, first, last, totals, unpacked, y);
    }
    for (; tile < end; ++tile) product_block<I, Bits, 1>(w, x, tile, first, last, totals, unpacked, y);
  }
}

template <typename I>
void many_rows(const WeightView& w, const PanelsView& x, int64_t begin, int64_t end, float* totals, uint8_t* unpacked, float* y) {
  if (w.bits == 4) return product_many_rows<I, 4>(w, x, begin, end, totals, unpacked, y);
  product_many_rows<I, 8>(w, x, begin, end, totals, unpacked, y);
}

template <typename I, bool IsBfloat16>
inline typename I::Float load_halves(const uint16_t* values) {
  if constexpr (IsBfloat16) return I::load_bfloat16(values);
  return I::load_float16(values);
}

// C output channels from n on, S sums for each, of every S-th run of 16 products: for one row a single stream of weights, for more
// rows channels that share what is loaded of x. The channels' next ones are fetched meanwhile.
template <typename I, bool IsBfloat16, int C, int S, int R>
inline void half_channels(const HalfView& w, const float* x, int64_t n, float* y) {
  typename I::Float acc[C][S][R];
  for (int c = 0; c < C; ++c) {
    for (int s = 0; s < S; ++s) {
      for (int r = 0; r < R; ++r) acc[c][s][r] = I::no_floats();
    }
  }
  const uint16_t* rows = w.values + n * w.in_features;
  const int64_t ahead = C == 1 ? kPrefetchBytes / 2 : C * w.in_features;
  int64_t k = 0;
  for (; k + S * kLanes <= w.in_features; k += S * kLanes) {
    for (int c = 0; c < C; ++c) {
      for (int s = 0; s < S; ++s) {
        const uint16_t* from = rows + c * w.in_features + k + s * kLanes;
        if (s % 2 == 0) __builtin_prefetch(from + ahead, 0, 2);
        const typename I::Float values = load_halves<I, IsBfloat16>(from);
        for (int r = 0; r < R; ++r)
          acc[c][s][r] = I::multiply_add(values, I::load(x + r * w.in_features + k + s * kLanes), acc[c][s][r]);
      }
    }
  }
  for (; k < w.in_features; k += kLanes) {
    const int64_t left = w.in_features - k < kLanes ? w.in_features - k : kLanes;
    float inputs[R][kLanes] = {};
    for (int r = 0; r < R; ++r) {
      for (int64_t i = 0; i < left; ++i) inputs[r][i] = x[r * w.in_features + k + i];
    }
    for (int c = 0; c < C; ++c) {
      uint16_t halves[kLanes] = {};
      for (int64_t i = 0; i < left; ++i) halves[i] = rows[c * w.in_features + k + i];
      const typename I::Float values = load_halves<I, IsBfloat16>(halves);
      for (int r = 0; r < R; ++r) acc[c][0][r] = I::multiply_add(values, I::load(inputs[r]), acc[c][0][r]);
    }
  }
  for (int c = 0; c < C; ++c) {
    for (int r = 0; r < R; ++r) {
      typename I::Float sum = acc[c][0][r];
      for (int s = 1; s < S; ++s) sum = I::add(sum, acc[c][s][r]);
      y[r * w.out_features + n + c] = I::total(sum);
    }
  }
}

template <typename I, bool IsBfloat16, int R>
void half_product_rows(const HalfView& w, const float* x, int64_t begin, int64_t end, float* y) {
  constexpr int kChannels = R == 1 ? 1 : I::kHalfChannels;
  constexpr int kSums = 2;  // whatever R is: a row's result does not depend on the others
  int64_t n = begin;
  for (; n + kChannels <= end; n += kChannels) half_channels<I, IsBfloat16, kChannels, kSums, R>(w, x, n, y);
  for (; n < end; ++n) half_channels<I, IsBfloat16, 1, kSums, R>(w, x, n, y);
}

template <typename I, bool IsBfloat16>
void half_product(const HalfView& w, const float* x, int64_t rows, int64_t begin, int64_t end, float* y) {
  if (rows == 1) return half_product_rows<I, IsBfloat16, 1>(w, x, begin, end, y);
  if (rows == 2) return half_product_rows<I, IsBfloat16, 2>(w, x, begin, end, y);
  if (rows == 3) return half_product_rows<I, IsBfloat16, 3>(w, x, begin, end, y);
  half_product_rows<I, IsBfloat16, 4>(w, x, begin, end, y);
}

template <typename I>
void half_rows(const HalfView& w, const float* x, int64_t rows, int64_t begin, int64_t end, float* y) {
  if (w.is_bfloat16) return half_product<I, true>(w, x, rows, begin, end, y);
  half_product<I, false>(w, x, rows, begin, end, y);
}

template <typename I>
constexpr TileKernels make_tiles() {
  return {I::kPanelRows, I::kPanelTiles, I::kBlockRows,   &few_rows<I>,  &many_rows<I>,
          &half_rows<I>, &float_tile<I>, &find_logits<I>, &sum_values<I>};
}

}  // namespace
}  // namespace salient::quant
