#include "models/decoder/packed_kernel.h"

#include <bit>
#include <cstring>

// Each entry point is compiled three times and chosen at start-up. The loops use the compilers' vector types of 16 lanes: one AVX-512 register,
// two of AVX2, four of SSE2 or NEON.
#if defined(__x86_64__) && defined(__GNUC__)
#define SALIENT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SALIENT_CLONES
#endif
#define SALIENT_INLINE inline __attribute__((always_inline))

namespace salient::models {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kVectorChunk = 2 * kLanes;

using FloatLanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using WordLanes = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using HalfLanes = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using ByteLanes = uint8_t __attribute__((vector_size(kLanes)));

// The codes of 32 input channels, as float: [0, 16) and [16, 32).
SALIENT_INLINE void unpack(const uint8_t* packed, FloatLanes& low, FloatLanes& high) {
  ByteLanes bytes;
  std::memcpy(&bytes, packed, sizeof bytes);
  const IntLanes wide = __builtin_convertvector(bytes, IntLanes);
  low = __builtin_convertvector(wide & 15, FloatLanes);
  high = __builtin_convertvector(wide >> 4, FloatLanes);
}

SALIENT_INLINE FloatLanes load(const float* from) {
  FloatLanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

SALIENT_INLINE float sum(const FloatLanes& lanes) {
  float total = 0.0F;
  for (int64_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

// `Channels` output channels from n on, times `Rows` rows of x: unpacked codes are used for every row, loaded inputs for every channel.
template <int Channels, int Rows>
SALIENT_INLINE void product_tile(const PackedView& w, const float* x, float* y, int64_t out_features, int64_t n) {
  const int64_t groups = w.in_features / w.group_size;
  FloatLanes total[Channels][Rows] = {};
  for (int64_t g = 0; g < groups; ++g) {
    FloatLanes partial[Channels][Rows] = {};
    float zero[Channels];
    for (int c = 0; c < Channels; ++c) zero[c] = static_cast<float>(w.zeros[(n + c) * groups + g]);
    for (int64_t k = g * w.group_size; k < (g + 1) * w.group_size; k += kVectorChunk) {
      FloatLanes low[Channels];
      FloatLanes high[Channels];
      for (int c = 0; c < Channels; ++c) {
        unpack(w.packed + ((n + c) * w.in_features + k) / 2, low[c], high[c]);
        low[c] -= zero[c];
        high[c] -= zero[c];
      }
      for (int r = 0; r < Rows; ++r) {
        const FloatLanes x_low = load(x + r * w.in_features + k);
        const FloatLanes x_high = load(x + r * w.in_features + k + kLanes);
        for (int c = 0; c < Channels; ++c) partial[c][r] += low[c] * x_low;
        for (int c = 0; c < Channels; ++c) partial[c][r] += high[c] * x_high;
      }
    }
    for (int c = 0; c < Channels; ++c) {
      for (int r = 0; r < Rows; ++r) total[c][r] += partial[c][r] * w.scales[(n + c) * groups + g];
    }
  }
  for (int c = 0; c < Channels; ++c) {
    for (int r = 0; r < Rows; ++r) y[r * out_features + n + c] = sum(total[c][r]);
  }
}

template <int Rows>
SALIENT_INLINE void product_rows(const PackedView& w, const float* x, float* y, int64_t out_features, int64_t begin, int64_t end) {
  constexpr int kChannels = Rows == 1 ? 4 : 2;
  int64_t n = begin;
  for (; n + kChannels <= end; n += kChannels) product_tile<kChannels, Rows>(w, x, y, out_features, n);
  for (; n < end; ++n) product_tile<1, Rows>(w, x, y, out_features, n);
}

SALIENT_INLINE float code_at(const PackedView& w, int64_t n, int64_t k) {
  const int64_t half = w.chunk / 2;
  const int64_t within = k % w.chunk;
  const uint8_t byte = w.packed[(n * w.in_features + k - within) / 2 + within % half];
  return static_cast<float>(within < half ? byte & 15 : byte >> 4);
}

// Any chunk: one channel, one row, one code at a time.
SALIENT_INLINE void product_scalar(const PackedView& w, const float* x, float* y, int64_t out_features, int64_t n) {
  const int64_t groups = w.in_features / w.group_size;
  float total = 0.0F;
  for (int64_t g = 0; g < groups; ++g) {
    const auto zero = static_cast<float>(w.zeros[n * groups + g]);
    float partial = 0.0F;
    for (int64_t k = g * w.group_size; k < (g + 1) * w.group_size; ++k) partial += (code_at(w, n, k) - zero) * x[k];
    total += partial * w.scales[n * groups + g];
  }
  y[n] = total;
  static_cast<void>(out_features);
}

SALIENT_INLINE void store(const FloatLanes& values, float* to) { std::memcpy(to, &values, sizeof values); }

SALIENT_INLINE void store(const FloatLanes& values, uint16_t* to) {
  const WordLanes bits = std::bit_cast<WordLanes>(values);  // finite: no NaN to keep
  const WordLanes rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const HalfLanes narrow = __builtin_convertvector(rounded, HalfLanes);
  std::memcpy(to, &narrow, sizeof narrow);
}

SALIENT_INLINE void store(float value, float* to) { *to = value; }

SALIENT_INLINE void store(float value, uint16_t* to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  *to = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename Out>
SALIENT_INLINE void dequantize(const PackedView& w, int64_t begin, int64_t end, Out* out) {
  const int64_t groups = w.in_features / w.group_size;
  for (int64_t n = begin; n < end; ++n) {
    Out* row = out + (n - begin) * w.in_features;
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = w.scales[n * groups + g];
      const auto zero = static_cast<float>(w.zeros[n * groups + g]);
      const int64_t group_end = (g + 1) * w.group_size;
      if (w.chunk == kVectorChunk) {
        for (int64_t k = g * w.group_size; k < group_end; k += kVectorChunk) {
          FloatLanes low;
          FloatLanes high;
          unpack(w.packed + (n * w.in_features + k) / 2, low, high);
          store((low - zero) * scale, row + k);
          store((high - zero) * scale, row + k + kLanes);
        }
      } else {
        for (int64_t k = g * w.group_size; k < group_end; ++k) store((code_at(w, n, k) - zero) * scale, row + k);
      }
    }
  }
}

}  // namespace

SALIENT_CLONES void packed_product(const PackedView& weight, const float* x, int64_t rows, float* y, int64_t out_features, int64_t begin,
                                   int64_t end) {
  constexpr int kTile = 4;
  int64_t r = 0;
  if (weight.chunk == kVectorChunk) {
    for (; r + kTile <= rows; r += kTile) product_rows<kTile>(weight, x + r * weight.in_features, y + r * out_features, out_features, begin, end);
    for (; r < rows; ++r) product_rows<1>(weight, x + r * weight.in_features, y + r * out_features, out_features, begin, end);
  }
  for (; r < rows; ++r) {
    for (int64_t n = begin; n < end; ++n) product_scalar(weight, x + r * weight.in_features, y + r * out_features, out_features, n);
  }
}

SALIENT_CLONES void packed_dequantize(const PackedView& weight, int64_t begin, int64_t end, float* out) { dequantize(weight, begin, end, out); }

SALIENT_CLONES void packed_dequantize_bfloat16(const PackedView& weight, int64_t begin, int64_t end, uint16_t* out) {
  dequantize(weight, begin, end, out);
}

}  // namespace salient::models
