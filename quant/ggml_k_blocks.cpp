// Q4_K, Q5_K, Q6_K: blocks of 256 elements whose sub-blocks have quantized scales.
#include <algorithm>
#include <cmath>

#include "quant/ggml_blocks.h"
#include "quant/ggml_half.h"
#include "quant/ggml_search.h"

namespace salient::quant {
namespace {

constexpr int kBlock = 256;

int clamp_code(float scaled, int low, int high) { return std::clamp(round_as_ggml(scaled), low, high); }

// Q4_K and Q5_K: eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.
template <bool kFifthBit>
struct MinFormat {
  static constexpr int kSub = 32;
  static constexpr int kCount = kBlock / kSub;
  static constexpr int kScales = 4;
  static constexpr int kHigh = 16;
  static constexpr int kLow = kFifthBit ? 48 : 16;
  static constexpr int kBytes = kLow + kBlock / 2;
  static constexpr int kLevels = kFifthBit ? 31 : 15;
  static constexpr MinSearch kPlain = kFifthBit ? MinSearch{31, -0.5f, 0.1f, 15} : MinSearch{15, -1.0f, 0.1f, 20};
  static constexpr MinSearch kWeighted{kLevels, -0.9f, 0.05f, 36};
};

constexpr int kScaleLevels = 63;

void store_scales(const uint8_t* scales, const uint8_t* mins, uint8_t* bytes) {
  for (int j = 0; j < 4; ++j) {
    bytes[j] = static_cast<uint8_t>(scales[j] | scales[j + 4] >> 4 << 6);
    bytes[j + 4] = static_cast<uint8_t>(mins[j] | mins[j + 4] >> 4 << 6);
    bytes[j + 8] = static_cast<uint8_t>((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
  }
}

void load_scales(const uint8_t* bytes, int* scales, int* mins) {
  for (int j = 0; j < 4; ++j) {
    scales[j] = bytes[j] & 63;
    mins[j] = bytes[j + 4] & 63;
    scales[j + 4] = (bytes[j + 8] & 15) | bytes[j] >> 6 << 4;
    mins[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
  }
}

// values, weights: interleaved [32, 8].
void weigh(const float* x, const float* importance, float* values, float* weights) {
  constexpr int kSub = kBlock / kGgmlLanes;
  for (int s = 0; s < kGgmlLanes; ++s) {
    for (int l = 0; l < kSub; ++l) values[l * kGgmlLanes + s] = x[s * kSub + l];
  }
  if (importance != nullptr) {
    float sum = 0.0f;
    for (int i = 0; i < kBlock; ++i) sum += x[i] * x[i];
    const float spread = 2.0f * sum / static_cast<float>(kBlock);
    for (int s = 0; s < kGgmlLanes; ++s) {
      for (int l = 0; l < kSub; ++l) weights[l * kGgmlLanes + s] = importance[s * kSub + l];
    }
    for (int i = 0; i < kBlock; ++i) weights[i] = weights[i] * std::sqrt(spread + values[i] * values[i]);
    return;
  }
  float level[kGgmlLanes] = {};
  for (int l = 0; l < kSub; ++l) {
    for (int s = 0; s < kGgmlLanes; ++s) level[s] += values[l * kGgmlLanes + s] * values[l * kGgmlLanes + s];
  }
  for (float& value : level) value = std::sqrt(value / static_cast<float>(kSub));
  for (int l = 0; l < kSub; ++l) {
    for (int s = 0; s < kGgmlLanes; ++s) weights[l * kGgmlLanes + s] = level[s] + std::fabs(values[l * kGgmlLanes + s]);
  }
}

// The second level without importance: the range of the eight numbers.
float round_second_level(const float* x, uint8_t* codes) {
  const float max = std::max(0.0f, *std::max_element(x, x + kGgmlLanes));
  const float inverse = max > 0.0f ? static_cast<float>(kScaleLevels) / max : 0.0f;
  for (int j = 0; j < kGgmlLanes; ++j) codes[j] = static_cast<uint8_t>(std::min(kScaleLevels, round_as_ggml(inverse * x[j])));
  return max / static_cast<float>(kScaleLevels);
}

template <bool kFifthBit>
void quantize_block(const float* x, const float* importance, uint8_t* block) {
  using Format = MinFormat<kFifthBit>;
  float values[kBlock];
  float weights[kBlock];
  weigh(x, importance, values, weights);
  float scales[Format::kCount];
  float mins[Format::kCount];
  uint8_t codes[kBlock];  // interleaved
  search_scale_and_min(values, weights, Format::kSub, importance != nullptr ? Format::kWeighted : Format::kPlain, scales, mins,
                       codes);

  uint8_t scale_codes[Format::kCount];
  uint8_t min_codes[Format::kCount];
  if (importance != nullptr) {
    float sums[Format::kCount] = {};
    for (int l = 0; l < Format::kSub; ++l) {
      for (int s = 0; s < Format::kCount; ++s) sums[s] += weights[l * kGgmlLanes + s];
    }
    store_half(fit_scale(scales, sums, Format::kCount, kScaleLevels, scale_codes), block);
    store_half(fit_scale(mins, sums, Format::kCount, kScaleLevels, min_codes), block + 2);
  } else {
    store_half(round_second_level(scales, scale_codes), block);
    store_half(round_second_level(mins, min_codes), block + 2);
  }
  store_scales(scale_codes, min_codes, block + Format::kScales);

  // Codes for the scales as they are stored, read back: the six bits cut off what a negative fit (of a sub-block whose large
  // elements all weigh nothing) left above them. Where a scale is 0, the codes of the search stay: they do not matter, but ggml
  // leaves them too.
  int stored_scales[Format::kCount];
  int stored_mins[Format::kCount];
  load_scales(block + Format::kScales, stored_scales, stored_mins);
  const float d = load_half(block);
  const float dmin = load_half(block + 2);
  for (int s = 0; s < Format::kCount; ++s) {
    const float scale = d * static_cast<float>(stored_scales[s]);
    if (scale == 0.0f) continue;
    const float min = dmin * static_cast<float>(stored_mins[s]);
    for (int l = 0; l < Format::kSub; ++l) {
      codes[l * kGgmlLanes + s] = static_cast<uint8_t>(clamp_code((x[s * Format::kSub + l] + min) / scale, 0, Format::kLevels));
    }
  }

  if constexpr (kFifthBit) std::fill_n(block + Format::kHigh, Format::kSub, uint8_t{0});
  for (int c = 0; c < Format::kCount / 2; ++c) {
    for (int l = 0; l < Format::kSub; ++l) {
      const int low = codes[l * kGgmlLanes + 2 * c];
      const int high = codes[l * kGgmlLanes + 2 * c + 1];
      block[Format::kLow + Format::kSub * c + l] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
      if constexpr (kFifthBit)
        block[Format::kHigh + l] = static_cast<uint8_t>(block[Format::kHigh + l] | low >> 4 << 2 * c | high >> 4 << (2 * c + 1));
    }
  }
}

template <bool kFifthBit>
void quantize(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  for (int64_t i = 0; i < n; i += kBlock, blocks += MinFormat<kFifthBit>::kBytes) {
    quantize_block<kFifthBit>(x + i, importance != nullptr ? importance + i : nullptr, blocks);
  }
}

template <bool kFifthBit>
void dequantize(const uint8_t* block, int64_t n, float* x) {
  using Format = MinFormat<kFifthBit>;
  for (; n > 0; n -= kBlock, block += Format::kBytes, x += kBlock) {
    const float d = load_half(block);
    const float dmin = load_half(block + 2);
    int scales[Format::kCount];
    int mins[Format::kCount];
    load_scales(block + Format::kScales, scales, mins);
    for (int s = 0; s < Format::kCount; ++s) {
      const float scale = d * static_cast<float>(scales[s]);
      const float min = dmin * static_cast<float>(mins[s]);
      const uint8_t* low = block + Format::kLow + s / 2 * Format::kSub;
      const int shift = s % 2 * 4;
      for (int l = 0; l < Format::kSub; ++l) {
        int code = low[l] >> shift & 15;
        if constexpr (kFifthBit) code |= (block[Format::kHigh + l] >> s & 1) << 4;
        x[s * Format::kSub + l] = scale * static_cast<float>(code) - min;
      }
    }
  }
}

namespace q6 {

constexpr int kSub = 16;
constexpr int kCount = kBlock / kSub;
constexpr int kHigh = 128;
constexpr int kScales = 192;
constexpr int kScale = 208;
constexpr int kBytes = 210;
constexpr int kZero = 32;
constexpr float kNothing = 1e-15f;

void store_codes(const uint8_t* codes, uint8_t* block) {
  for (int half = 0; half < 2; ++half, codes += 128) {
    for (int l = 0; l < 32; ++l) {
      block[64 * half + l] = static_cast<uint8_t>((codes[l] & 15) | (codes[l + 64] & 15) << 4);
      block[64 * half + 32 + l] = static_cast<uint8_t>((codes[l + 32] & 15) | (codes[l + 96] & 15) << 4);
      block[kHigh + 32 * half + l] =
          static_cast<uint8_t>(codes[l] >> 4 | codes[l + 32] >> 4 << 2 | codes[l + 64] >> 4 << 4 | codes[l + 96] >> 4 << 6);
    }
  }
}

void quantize_block(const float* x, const float* importance, uint8_t* block) {
  float values[kBlock];
  float weights[kBlock];
  for (int s = 0; s < kCount; ++s) {
    const int first = s / kGgmlLanes * kGgmlLanes * kSub + s % kGgmlLanes;
    for (int l = 0; l < kSub; ++l) values[first + l * kGgmlLanes] = x[s * kSub + l];
    if (importance == nullptr) continue;
    for (int l = 0; l < kSub; ++l) weights[first + l * kGgmlLanes] = importance[s * kSub + l];
  }
  if (importance == nullptr) {
    for (int i = 0; i < kBlock; ++i) weights[i] = values[i] * values[i];
  }
  float scales[kCount];
  uint8_t found[kBlock];
  for (int s = 0; s < kCount; s += kGgmlLanes)
    search_scale(values + s * kSub, weights + s * kSub, kSub, kZero, scales + s, found + s * kSub);

  const float extreme = *std::max_element(scales, scales + kCount, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  if (std::fabs(extreme) < kNothing) {
    std::fill_n(block, kBytes, uint8_t{0});
    return;
  }
  const float inverse = -128.0f / extreme;
  store_half(1.0f / inverse, block + kScale);
  const float d = load_half(block + kScale);
  uint8_t codes[kBlock];
  for (int s = 0; s < kCount; ++s) {
    const int first = s / kGgmlLanes * kGgmlLanes * kSub + s % kGgmlLanes;
    const auto scale_code = static_cast<int8_t>(std::min(127, round_as_ggml(inverse * scales[s])));
    block[kScales + s] = static_cast<uint8_t>(scale_code);
    const float scale = d * static_cast<float>(scale_code);
    for (int l = 0; l < kSub; ++l) {
      codes[s * kSub + l] = scale == 0.0f ? found[first + l * kGgmlLanes]
                                          : static_cast<uint8_t>(clamp_code(x[s * kSub + l] / scale, -kZero, kZero - 1) + kZero);
    }
  }
  store_codes(codes, block);
}

}  // namespace q6
}  // namespace

void quantize_q4_k(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<false>(x, importance, n, blocks);
}
void quantize_q5_k(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  quantize<true>(x, importance, n, blocks);
}
void dequantize_q4_k(const uint8_t* blocks, int64_t n, float* x) { dequantize<false>(blocks, n, x); }
void dequantize_q5_k(const uint8_t* blocks, int64_t n, float* x) { dequantize<true>(blocks, n, x); }

void quantize_q6_k(const float* x, const float* importance, int64_t n, uint8_t* blocks) {
  for (int64_t i = 0; i < n; i += kBlock, blocks += q6::kBytes)
    q6::quantize_block(x + i, importance != nullptr ? importance + i : nullptr, blocks);
}

void dequantize_q6_k(const uint8_t* block, int64_t n, float* x) {
  for (; n > 0; n -= kBlock, block += q6::kBytes, x += kBlock) {
    const float d = load_half(block + q6::kScale);
    for (int half = 0; half < 2; ++half) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        for (int l = 0; l < 32; ++l) {
          const int element = 128 * half + 32 * quarter + l;
          const int low = block[64 * half + quarter % 2 * 32 + l] >> quarter / 2 * 4 & 15;
          const int high = block[q6::kHigh + 32 * half + l] >> 2 * quarter & 3;
          const float scale = d * static_cast<float>(static_cast<int8_t>(block[q6::kScales + element / q6::kSub]));
          x[element] = scale * static_cast<float>((low | high << 4) - q6::kZero);
        }
      }
    }
  }
}

}  // namespace salient::quant
