// 16 lanes in two registers of 256 bits, for quant/kernels/tile_template.h. AVX2, FMA, F16C.
#pragma once

#include <immintrin.h>

#include "quant/kernels/tile_template.h"

namespace salient::quant {
namespace {

struct Lanes256 {
  struct Int {
    __m256i low, high;
  };
  struct Float {
    __m256 low, high;
  };
  static constexpr int64_t kPanelRows = 4;
  static constexpr int kPanelTiles = 1;
  static constexpr int kHalfChannels = 1;
  static constexpr int64_t kBlockRows = 64;
  static constexpr int kValueSums = 4;
  static constexpr int kFloatRows = 6;
  static constexpr int kFloatVectors = 1;
  static constexpr int kTurned = 4;

  static __m256i load_half_line(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T1); }
  static __m128i load_128(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  // 4 bytes in every lane
  static __m256i splat_word(const int8_t* from) {
    int32_t word = 0;
    __builtin_memcpy(&word, from, sizeof word);
    return _mm256_set1_epi32(word);
  }

  static Int load_zeros(const uint8_t* bytes) {
    const __m128i all = load_128(bytes);
    return {_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(all, all))};
  }
  static Int negative_product(Int lanes, int32_t value) {
    const __m256i factor = _mm256_set1_epi32(-value);
    return {_mm256_mullo_epi32(lanes.low, factor), _mm256_mullo_epi32(lanes.high, factor)};
  }
  static Float to_float(Int lanes) { return {_mm256_cvtepi32_ps(lanes.low), _mm256_cvtepi32_ps(lanes.high)}; }
  static Float no_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Float splat(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Float load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static Float load_float16(const uint16_t* from) { return {_mm256_cvtph_ps(load_128(from)), _mm256_cvtph_ps(load_128(from + 8))}; }
  static Float load_codes(const int8_t* from) {
    const __m128i all = load_128(from);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(all, all)))};
  }
  static Float load_bfloat16(const uint16_t* from) {
    const auto widen = [](__m128i values) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(values), 16)); };
    return {widen(load_128(from)), widen(load_128(from + 8))};
  }
  static void store(Float values, float* to) {
    _mm256_storeu_ps(to, values.low);
    _mm256_storeu_ps(to + 8, values.high);
  }
  static Float add(Float a, Float b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static Float multiply(Float a, Float b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static Float multiply_add(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static float total(Float values) {
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(values.low, values.high));
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  }
  // Of rows i and i + 4, four numbers each.
  static __m256 load_halves(const float* from, int64_t stride, int i) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + i * stride)), _mm_loadu_ps(from + (i + 4) * stride), 1);
  }
  // Lane i of to[j] = from[i * stride + j].
  static void turn_half(const float* from, int64_t stride, __m256 (&to)[4]) {
    const __m256 row[4] = {load_halves(from, stride, 0), load_halves(from, stride, 1), load_halves(from, stride, 2),
                           load_halves(from, stride, 3)};
    const __m256 low[2] = {_mm256_unpacklo_ps(row[0], row[1]), _mm256_unpacklo_ps(row[2], row[3])};
    const __m256 high[2] = {_mm256_unpackhi_ps(row[0], row[1]), _mm256_unpackhi_ps(row[2], row[3])};
    to[0] = _mm256_shuffle_ps(low[0], low[1], 0x44);
    to[1] = _mm256_shuffle_ps(low[0], low[1], 0xee);
    to[2] = _mm256_shuffle_ps(high[0], high[1], 0x44);
    to[3] = _mm256_shuffle_ps(high[0], high[1], 0xee);
  }
  static void turn(const float* from, int64_t stride, Float (&to)[kTurned]) {
    __m256 low[kTurned];
    __m256 high[kTurned];
    turn_half(from, stride, low);
    turn_half(from + 8 * stride, stride, high);
    for (int j = 0; j < kTurned; ++j) to[j] = {low[j], high[j]};
  }
};

}  // namespace
}  // namespace salient::quant
