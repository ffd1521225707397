#include "models/decoder/packed_kernel.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

// Each entry point is compiled three times and chosen at start-up. The loops use the compilers' vector types of 16 lanes: one
// AVX-512 register, two of AVX2, four of SSE2 or NEON. Vectors are passed by reference only: as values they would make the calling
// convention depend on the target. Not under clang's ThreadSanitizer, which also watches what chooses, before it can.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SALIENT_WATCHED
#endif
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(SALIENT_WATCHED)
#define SALIENT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SALIENT_CLONES
#endif
#define SALIENT_INLINE inline __attribute__((always_inline))

namespace salient::models {
namespace {

static_assert(std::endian::native == std::endian::little, "the wide layout is read as words");
constexpr int kNibbles = static_cast<int>(kWideChunk / kWideLanes);

using FloatLanes = float __attribute__((vector_size(kWideLanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(kWideLanes * sizeof(int32_t))));
using WordLanes = uint32_t __attribute__((vector_size(kWideLanes * sizeof(uint32_t))));
using HalfLanes = uint16_t __attribute__((vector_size(kWideLanes * sizeof(uint16_t))));
using ByteLanes = uint8_t __attribute__((vector_size(kWideLanes)));

template <typename Lanes, typename Element>
SALIENT_INLINE void load(const Element* from, Lanes& lanes) {
  std::memcpy(&lanes, from, sizeof lanes);
}

// The codes in one nibble of each word.
SALIENT_INLINE void unpack(const IntLanes& words, int nibble, FloatLanes& codes) {
  codes = __builtin_convertvector((words >> (4 * nibble)) & 15, FloatLanes);
}

// The same times 16^nibble, without a shift: PackedInput's numbers are divided by it, both exactly. The highest nibble is shifted,
// since it holds the sign.
SALIENT_INLINE void unpack_in_place(const IntLanes& words, int nibble, FloatLanes& codes) {
  if (nibble == kNibbles - 1) {
    codes = __builtin_convertvector(WordLanes(words) >> (4 * nibble), FloatLanes);
  } else {
    codes = __builtin_convertvector(words & (15 << (4 * nibble)), FloatLanes);
  }
}

SALIENT_INLINE float sum(const FloatLanes& lanes) {
  float parts[kWideLanes];
  std::memcpy(parts, &lanes, sizeof parts);
  for (int64_t width = kWideLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}

// `Channels` output channels from n on, times `Rows` rows of x: unpacked codes are used for every row, loaded inputs for every
// channel. `Run`: nibbles of a word that lie in one group; with all of them in one, a group may go on over several chunks. A
// group's sum of codes times inputs is multiplied with its scale, its zero point with the sum of its inputs.
template <int Channels, int Rows, int Run>
SALIENT_INLINE void product_tile(const PackedView& w, const PackedInput& x, int64_t row, float* y, int64_t out_features,
                                 int64_t n) {
  const int64_t groups = w.in_features / w.group_size;
  const float* inputs = x.numbers + row * w.in_features;
  const float* sums = x.sums + row * groups;
  FloatLanes total[Channels][Rows] = {};
  FloatLanes partial[Channels][Rows] = {};
  float of_zeros[Channels][Rows] = {};
  for (int64_t k = 0; k < w.in_features; k += kWideChunk) {
    IntLanes words[Channels];
    for (int c = 0; c < Channels; ++c) {
      const uint8_t* from = w.packed + ((n + c) * w.in_features + k) / 2;
      load(from, words[c]);
      __builtin_prefetch(from + Channels * w.in_features / 2, 0, 2);  // the same place of the next tile
    }
    for (int first = 0; first < kNibbles; first += Run) {
      for (int nibble = first; nibble < first + Run; ++nibble) {
        FloatLanes values[Channels];
        for (int c = 0; c < Channels; ++c) unpack_in_place(words[c], nibble, values[c]);
        for (int r = 0; r < Rows; ++r) {
          FloatLanes input;
          load(inputs + r * w.in_features + k + nibble * kWideLanes, input);
          for (int c = 0; c < Channels; ++c) partial[c][r] += values[c] * input;
        }
      }
      if (Run == kNibbles && (k + kWideChunk) % w.group_size != 0) continue;
      const int64_t group = (k + first * kWideLanes) / w.group_size;
      for (int c = 0; c < Channels; ++c) {
        const float scale = w.scales[(n + c) * groups + group];
        const float zero = static_cast<float>(w.zeros[(n + c) * groups + group]) * scale;
        for (int r = 0; r < Rows; ++r) {
          total[c][r] += partial[c][r] * scale;
          of_zeros[c][r] += zero * sums[r * groups + group];
          partial[c][r] = FloatLanes{};
        }
      }
    }
  }
  for (int c = 0; c < Channels; ++c) {
    for (int r = 0; r < Rows; ++r) y[(row + r) * out_features + n + c] = sum(total[c][r]) - of_zeros[c][r];
  }
}

template <int Rows, int Run>
SALIENT_INLINE void product_rows(const PackedView& w, const PackedInput& x, int64_t row, float* y, int64_t out_features,
                                 int64_t begin, int64_t end) {
  constexpr int kChannels = Rows == 1 ? 4 : 2;
  int64_t n = begin;
  for (; n + kChannels <= end; n += kChannels) product_tile<kChannels, Rows, Run>(w, x, row, y, out_features, n);
  for (; n < end; ++n) product_tile<1, Rows, Run>(w, x, row, y, out_features, n);
}

template <int Run>
SALIENT_INLINE void product_wide(const PackedView& w, const PackedInput& x, float* y, int64_t out_features, int64_t begin,
                                 int64_t end) {
  constexpr int kTile = 4;
  int64_t row = 0;
  for (; row + kTile <= x.rows; row += kTile) product_rows<kTile, Run>(w, x, row, y, out_features, begin, end);
  for (; row < x.rows; ++row) product_rows<1, Run>(w, x, row, y, out_features, begin, end);
}

SALIENT_INLINE float pair_value(const PackedView& w, int64_t n, int64_t k) {
  const int64_t group = n * (w.in_features / w.group_size) + k / w.group_size;
  const uint8_t byte = w.packed[(n * w.in_features + k) / 2];
  return (static_cast<float>(k % 2 == 0 ? byte & 15 : byte >> 4) - static_cast<float>(w.zeros[group])) * w.scales[group];
}

SALIENT_INLINE void store(const FloatLanes& values, float* to) { std::memcpy(to, &values, sizeof values); }

SALIENT_INLINE void store(const FloatLanes& values, uint16_t* to) {
  WordLanes bits;  // of finite values: no NaN to keep
  std::memcpy(&bits, &values, sizeof bits);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const HalfLanes narrow = __builtin_convertvector(bits, HalfLanes);
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
  const bool wide = is_wide(w.in_features, w.group_size);
  for (int64_t n = begin; n < end; ++n) {
    Out* row = out + (n - begin) * w.in_features;
    if (!wide) {
      for (int64_t k = 0; k < w.in_features; ++k) store(pair_value(w, n, k), row + k);
      continue;
    }
    for (int64_t k = 0; k < w.in_features; k += kWideChunk) {
      IntLanes words;
      load(w.packed + (n * w.in_features + k) / 2, words);
      for (int nibble = 0; nibble < kNibbles; ++nibble) {
        const int64_t group = n * groups + (k + nibble * kWideLanes) / w.group_size;
        FloatLanes values;
        unpack(words, nibble, values);
        values = (values - static_cast<float>(w.zeros[group])) * w.scales[group];
        store(values, row + k + nibble * kWideLanes);
      }
    }
  }
}

template <typename Out>
SALIENT_INLINE void dequantize_bytes(const ByteView& w, int64_t begin, int64_t end, Out* out) {
  const int64_t groups = w.in_features / w.group_size;
  for (int64_t group = begin * groups; group < end * groups; ++group) {
    const uint8_t* codes = w.codes + group * w.group_size;
    const auto zero = static_cast<float>(w.zeros[group]);
    const float scale = w.scales[group];
    int64_t k = 0;
    for (; k + kWideLanes <= w.group_size; k += kWideLanes) {
      ByteLanes bytes;
      load(codes + k, bytes);
      const FloatLanes values = (__builtin_convertvector(bytes, FloatLanes) - zero) * scale;
      store(values, out + k);
    }
    for (; k < w.group_size; ++k) store((static_cast<float>(codes[k]) - zero) * scale, out + k);
    out += w.group_size;
  }
}

}  // namespace

SALIENT_CLONES void pack_codes(const uint8_t* codes, int64_t rows, int64_t in_features, bool wide, uint8_t* packed) {
  if (!wide) {
    for (int64_t i = 0; i < rows * in_features / 2; ++i) packed[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
    return;
  }
  for (int64_t chunk = 0; chunk < rows * in_features / kWideChunk; ++chunk) {
    uint32_t words[kWideLanes] = {};
    for (int nibble = 0; nibble < kNibbles; ++nibble) {
      const uint8_t* run = codes + chunk * kWideChunk + nibble * kWideLanes;
      for (int64_t i = 0; i < kWideLanes; ++i) words[i] |= static_cast<uint32_t>(run[i]) << (4 * nibble);
    }
    std::memcpy(packed + chunk * kWideChunk / 2, words, sizeof words);
  }
}

void prepare_packed_input(const PackedView& weight, const float* x, int64_t rows, float* numbers, float* sums) {
  const bool wide = is_wide(weight.in_features, weight.group_size);
  for (int64_t r = 0; r < rows; ++r, x += weight.in_features, numbers += weight.in_features) {
    for (int64_t g = 0; g < weight.in_features / weight.group_size; ++g) {
      float total = 0.0F;
      for (int64_t k = g * weight.group_size; k < (g + 1) * weight.group_size; ++k) total += x[k];
      *sums++ = total;
    }
    for (int64_t first = 0; first < weight.in_features; first += kWideLanes) {
      const int64_t nibble = first % kWideChunk / kWideLanes;
      const float factor = wide && nibble < kNibbles - 1 ? std::ldexp(1.0F, static_cast<int>(-4 * nibble)) : 1.0F;
      for (int64_t k = first; k < std::min(first + kWideLanes, weight.in_features); ++k) numbers[k] = x[k] * factor;
    }
  }
}

SALIENT_CLONES void pack_wide_chunk(const uint8_t* codes, int64_t stride, int64_t channels, uint8_t* packed, int64_t row_bytes) {
  constexpr int64_t kChannels = 8;  // at a time
  for (int64_t n = 0; n < channels; n += kChannels) {
    uint32_t words[kWideLanes][kChannels];
    for (int64_t i = 0; i < kWideLanes; ++i) {
      for (int64_t c = 0; c < kChannels; ++c) {
        uint32_t word = 0;
        for (int nibble = 0; nibble < kNibbles; ++nibble)
          word |= static_cast<uint32_t>(codes[(nibble * kWideLanes + i) * stride + n + c]) << (4 * nibble);
        words[i][c] = word;
      }
    }
    for (int64_t c = 0; c < kChannels; ++c) {
      uint32_t row[kWideLanes];
      for (int64_t i = 0; i < kWideLanes; ++i) row[i] = words[i][c];
      std::memcpy(packed + (n + c) * row_bytes, row, sizeof row);
    }
  }
}

SALIENT_CLONES void packed_product(const PackedView& weight, const PackedInput& x, float* y, int64_t out_features, int64_t begin,
                                   int64_t end) {
  if (!is_wide(weight.in_features, weight.group_size)) {
    for (int64_t r = 0; r < x.rows; ++r) {
      for (int64_t n = begin; n < end; ++n) {
        float total = 0.0F;
        for (int64_t k = 0; k < weight.in_features; ++k) total += pair_value(weight, n, k) * x.numbers[r * weight.in_features + k];
        y[r * out_features + n] = total;
      }
    }
    return;
  }
  switch (weight.group_size) {
    case 16: return product_wide<1>(weight, x, y, out_features, begin, end);
    case 32: return product_wide<2>(weight, x, y, out_features, begin, end);
    case 64: return product_wide<4>(weight, x, y, out_features, begin, end);
    default: return product_wide<8>(weight, x, y, out_features, begin, end);
  }
}

SALIENT_CLONES void packed_dequantize(const PackedView& weight, int64_t begin, int64_t end, float* out) {
  dequantize(weight, begin, end, out);
}

SALIENT_CLONES void packed_dequantize_bfloat16(const PackedView& weight, int64_t begin, int64_t end, uint16_t* out) {
  dequantize(weight, begin, end, out);
}

SALIENT_CLONES void byte_dequantize(const ByteView& weight, int64_t begin, int64_t end, float* out) {
  dequantize_bytes(weight, begin, end, out);
}

SALIENT_CLONES void byte_dequantize_bfloat16(const ByteView& weight, int64_t begin, int64_t end, uint16_t* out) {
  dequantize_bytes(weight, begin, end, out);
}

}  // namespace salient::models
