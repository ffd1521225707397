// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 elements with one scale, or a scale and a minimum.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/ggml_blocks.h"
#include "quant/ggml_half.h"
#include "quant/ggml_search.h"

namespace salient::quant {
namespace {

constexpr int kBlock = 32;

// The four formats of nibbles differ in two things.
template <bool kMinimum, bool kFifthBit>
struct Nibbles {
  static constexpr int kHigh = kMinimum ? 4 : 2;  // where qh begins
  static constexpr int kLow = kHigh + (kFifthBit ? 4 : 0);
  static constexpr int kBytes = kLow + kBlock / 2;
  static constexpr int kLevels = kFifthBit ? 31 : 15;
  static constexpr int kZero = (kLevels + 1) / 2;  // the code of zero where there is no minimum

  static void store_codes(const uint8_t* codes, uint8_t* block) {
    uint32_t fifth = 0;
    for (int j = 0; j < kBlock / 2; ++j) {
      block[kLow + j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + kBlock / 2] & 15) << 4);
    }
    if constexpr (kFifthBit) {
      for (int j = 0; j < kBlock; ++j) fifth |= static_cast<uint32_t>(codes[j] >> 4 & 1) << j;
      std::memcpy(block + kHigh, &fifth, sizeof(fifth));
    }
  }

  static void load_codes(const uint8_t* block, int* codes) {
    for (int j = 0; j < kBlock / 2; ++j) {
      codes[j] = block[kLow + j] & 15;
      codes[j + kBlock / 2] = block[kLow + j] >> 4;
    }
    if constexpr (kFifthBit) {
      uint32_t fifth = 0;
      std::memcpy(&fifth, block + kHigh, sizeof(fifth));
      for (int j = 0; j < kBlock; ++j) codes[j] |= static_cast<int>(fifth >> j & 1) << 4;
    }
  }
};

// Codes lie in 0 .. levels + 1 except where the inverse of a subnormal scale is infinite; such a block is stored with the scale 0
// anyway.
uint8_t truncate_to_code(float value, int levels) {
  return value >= 0.0f && value < 256.0f ? static_cast<uint8_t>(std::min(levels, static_cast<int>(value))) : uint8_t{0};
}

template <bool kMinimum, bool kFifthBit>
void round_block(const float* x, uint8_t* block) {
  using Format = Nibbles<kMinimum, kFifthBit>;
  float scale = 0.0f;
  float offset = 0.0f;  // what is taken off before scaling
  float shift = 0.5f;   // what is added after scaling and before truncation
  if constexpr (kMinimum) {
    offset = *std::min_element(x, x + kBlock);  // the first of equals: +0 or -0
    scale = (*std::max_element(x, x + kBlock) - offset) / static_cast<float>(Format::kLevels);
    store_half(offset, block + 2);
  } else {
    float magnitude = 0.0f;
    float extreme = 0.0f;
    for (int j = 0; j < kBlock; ++j) {
      if (std::fabs(x[j]) > magnitude) {
        magnitude = std::fabs(x[j]);
        extreme = x[j];
      }
    }
    scale = extreme / static_cast<float>(-Format::kZero);
    shift += static_cast<float>(Format::kZero);
  }
  store_half(scale, block);
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  uint8_t codes[kBlock];
  for (int j = 0; j < kBlock; ++j) codes[j] = truncate_to_code((x[j] - offset) * inverse + shift, Format::kLevels);
  Format::store_codes(codes, block);
}

// Up to eight blocks side by side. Missing ones are zeros, which come out as zero scales and are dropped.
template <bool kMinimum, bool kFifthBit>
void search_blocks(const float* x, const float* importance, float row_mean_square, int count, uint8_t* blocks) {
  using Format = Nibbles<kMinimum, kFifthBit>;
  float values[kBlock * kGgmlLanes] = {};
  float weights[kBlock * kGgmlLanes] = {};
  for (int b = 0; b < count; ++b) {
    for (int j = 0; j < kBlock; ++j) {
      const float value = x[b * kBlock + j];
      values[j * kGgmlLanes + b] = value;
      weights[j * kGgmlLanes + b] = importance[b * kBlock + j] * std::sqrt(row_mean_square + value * value);
    }
  }
  float scales[kGgmlLanes];
  float mins[kGgmlLanes];
  uint8_t found[kBlock * kGgmlLanes];
  if constexpr (kMinimum) {
    search_scale_and_min(values, weights, kBlock, {Format::kLevels, -0.9f, 0.05f, 36}, scales, mins, found);
  } else {
    search_scale(values, weights, kBlock, Format::kZero, scales, found);
  }
  for (int b = 0; b < count; ++b) {
    uint8_t* block = blocks + b * Format::kBytes;
    uint8_t codes[kBlock];
    for (int j = 0; j < kBlock; ++j) codes[j] = found[j * kGgmlLanes + b];
    store_half(scales[b], block);
    if constexpr (kMinimum) store_half(-mins[b], block + 2);
    Format::store_codes(codes, block);
  }
}

template <bool kMinimum, bool kFifthBit>
void quantize(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  constexpr int kBytes = Nibbles<kMinimum, kFifthBit>::kBytes;
  const int64_t count = n / kBlock;
  if (importance == nullptr) {
    for (int64_t b = 0; b < count; ++b) round_block<kMinimum, kFifthBit>(x + b * kBlock, blocks + b * kBytes);
    return;
  }
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float mean_square = sum / static_cast<float>(n);
  for (int64_t b = 0; b < count; b += kGgmlLanes) {
    const int together = static_cast<int>(std::min<int64_t>(kGgmlLanes, count - b));
    search_blocks<kMinimum, kFifthBit>(x + b * kBlock, importance + b * kBlock, mean_square, together, blocks + b * kBytes);
  }
}

template <bool kMinimum, bool kFifthBit>
void dequantize(const uint8_t* blocks, int64_t n, float* x) {
  using Format = Nibbles<kMinimum, kFifthBit>;
  for (; n > 0; n -= kBlock, blocks += Format::kBytes, x += kBlock) {
    const float scale = load_half(blocks);
    const float min = kMinimum ? load_half(blocks + 2) : 0.0f;
    int codes[kBlock];
    Format::load_codes(blocks, codes);
    for (int j = 0; j < kBlock; ++j) {
      if constexpr (kMinimum) {
        x[j] = static_cast<float>(codes[j]) * scale + min;
      } else {
        x[j] = static_cast<float>(codes[j] - Format::kZero) * scale;
      }
    }
  }
}

}  // namespace

void quantize_q4_0(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<false, false>(x, importance, n, blocks);
}
void quantize_q4_1(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<true, false>(x, importance, n, blocks);
}
void quantize_q5_0(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<false, true>(x, importance, n, blocks);
}
void quantize_q5_1(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<true, true>(x, importance, n, blocks);
}
void dequantize_q4_0(const uint8_t* blocks, int64_t n, float* x) { dequantize<false, false>(blocks, n, x); }
void dequantize_q4_1(const uint8_t* blocks, int64_t n, float* x) { dequantize<true, false>(blocks, n, x); }
void dequantize_q5_0(const uint8_t* blocks, int64_t n, float* x) { dequantize<false, true>(blocks, n, x); }
void dequantize_q5_1(const uint8_t* blocks, int64_t n, float* x) { dequantize<true, true>(blocks, n, x); }

void quantize_q8_0(const float* x, const float*, int64_t n, uint8_t* blocks) {
  for (; n > 0; n -= kBlock, blocks += 2 + kBlock, x += kBlock) {
    float magnitude = 0.0f;
    for (int j = 0; j < kBlock; ++j) magnitude = std::max(magnitude, std::fabs(x[j]));
    const float scale = magnitude / 127.0f;
    float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    if (!std::isfinite(inverse)) inverse = 0.0f;  // of a subnormal scale, which is stored as 0 anyway
    store_half(scale, blocks);
    for (int j = 0; j < kBlock; ++j) blocks[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[j] * inverse)));
  }
}

void dequantize_q8_0(const uint8_t* blocks, int64_t n, float* x) {
  for (; n > 0; n -= kBlock, blocks += 2 + kBlock, x += kBlock) {
    const float scale = load_half(blocks);
    for (int j = 0; j < kBlock; ++j) x[j] = static_cast<float>(static_cast<int8_t>(blocks[2 + j])) * scale;
  }
}

}  // namespace salient::quant
