#if defined(__x86_64__)
#include <immintrin.h>

#include "quant/kernels/tile_template.h"

namespace salient::quant {
namespace {

struct Avx512Vnni {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int64_t kPanelRows = 8;
  static constexpr int kPanelTiles = 2;
  static constexpr int kHalfChannels = 2;
  static constexpr int64_t kBlockRows = 128;
  static constexpr int kValueSums = 8;
  static constexpr int kFloatRows = 12;
  static constexpr int kFloatVectors = 2;
  static constexpr int kTurned = 16;

  static void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T1); }
  static __m512i load_line(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static __m256i load_256(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  // 4 bytes in every lane
  static __m512i splat_word(const int8_t* from) {
    int32_t word = 0;
    __builtin_memcpy(&word, from, sizeof word);
    return _mm512_set1_epi32(word);
  }

  static Int load_zeros(const uint8_t* bytes) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  }
  static Int negative_product(Int lanes, int32_t value) { return _mm512_mullo_epi32(lanes, _mm512_set1_epi32(-value)); }
  static Float to_float(Int lanes) { return _mm512_cvtepi32_ps(lanes); }
  static Float no_floats() { return _mm512_setzero_ps(); }
  static Float splat(float value) { return _mm512_set1_ps(value); }
  static Float load(const float* from) { return _mm512_loadu_ps(from); }
  static Float load_float16(const uint16_t* from) { return _mm512_cvtph_ps(load_256(from)); }
  static Float load_codes(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static Float load_bfloat16(const uint16_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(from)), 16));
  }
  static void store(Float values, float* to) { _mm512_storeu_ps(to, values); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static float total(Float values) { return _mm512_reduce_add_ps(values); }
  static __m512 pair(__m512 a, __m512 b, bool high) {
    const __m512d left = _mm512_castps_pd(a);
    const __m512d right = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(left, right) : _mm512_unpacklo_pd(left, right));
  }
  static void turn(const float* from, int64_t stride, Float (&to)[kTurned]) {
    __m512 parts[16];  // [4 i + j]: of the rows 4 i to 4 i + 3 the columns j, 4 + j, 8 + j, 12 + j
    for (int i = 0; i < 4; ++i) {
      const __m512 row[4] = {load(from + 4 * i * stride), load(from + (4 * i + 1) * stride), load(from + (4 * i + 2) * stride),
                             load(from + (4 * i + 3) * stride)};
      const __m512 low[2] = {_mm512_unpacklo_ps(row[0], row[1]), _mm512_unpacklo_ps(row[2], row[3])};
      const __m512 high[2] = {_mm512_unpackhi_ps(row[0], row[1]), _mm512_unpackhi_ps(row[2], row[3])};
      parts[4 * i] = pair(low[0], low[1], false);
      parts[4 * i + 1] = pair(low[0], low[1], true);
      parts[4 * i + 2] = pair(high[0], high[1], false);
      parts[4 * i + 3] = pair(high[0], high[1], true);
    }
    for (int j = 0; j < 4; ++j) {
      const __m512 even[2] = {_mm512_shuffle_f32x4(parts[j], parts[4 + j], 0x88),
                              _mm512_shuffle_f32x4(parts[8 + j], parts[12 + j], 0x88)};
      const __m512 odd[2] = {_mm512_shuffle_f32x4(parts[j], parts[4 + j], 0xdd),
                             _mm512_shuffle_f32x4(parts[8 + j], parts[12 + j], 0xdd)};
      to[j] = _mm512_shuffle_f32x4(even[0], even[1], 0x88);
      to[4 + j] = _mm512_shuffle_f32x4(odd[0], odd[1], 0x88);
      to[8 + j] = _mm512_shuffle_f32x4(even[0], even[1], 0xdd);
      to[12 + j] = _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd);
    }
  }

  // acc + codes * x, four products a lane. Not _mm512_dpbusd_epi32: around it GCC 12 copies every sum of a loop to another register
  // and back.
  static void add_dot(__m512i& acc, __m512i codes, __m512i x) { asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(x)); }

  // Two sums a row: the instruction's latency is four times its rate.
  template <int Bits, int R>
  static void add_dots(const uint8_t* codes, int64_t padded_group, const int8_t* x, int64_t stride, Int* acc) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i second[R];
    for (int r = 0; r < R; ++r) second[r] = _mm512_setzero_si512();
    for (int64_t k = 0; k < padded_group; k += 8) {
      __m512i low;
      __m512i high;
      if constexpr (Bits == 4) {
        const __m512i line = load_line(codes + k * kLanes / 2);
        prefetch(codes + k * kLanes / 2);
        low = _mm512_and_si512(line, mask);
        high = _mm512_and_si512(_mm512_srli_epi16(line, 4), mask);
      } else {
        prefetch(codes + k * kLanes);
        prefetch(codes + k * kLanes + kLineBytes);
        low = load_line(codes + k * kLanes);
        high = load_line(codes + k * kLanes + kLineBytes);
      }
      for (int r = 0; r < R; ++r) {
        add_dot(acc[r], low, splat_word(x + r * stride + k));
        add_dot(second[r], high, splat_word(x + r * stride + k + 4));
      }
    }
    for (int r = 0; r < R; ++r) acc[r] = _mm512_add_epi32(acc[r], second[r]);
  }

  template <int Bits, int C>
  static void add_panel(const uint8_t* const* codes, int64_t steps, const int8_t* x, Int (*acc)[kPanelRows]) {
    for (int64_t step = 0; step < steps; ++step) {
      __m512i line[C];
      for (int c = 0; c < C; ++c) line[c] = load_line(codes[c] + step * kLineBytes);
      for (int64_t r = 0; r < kPanelRows; ++r) {
        const __m512i word = splat_word(x + (step * kPanelRows + r) * 4);
        for (int c = 0; c < C; ++c) add_dot(acc[c][r], line[c], word);
      }
    }
  }
};

}  // namespace

const TileKernels kAvx512VnniTiles = make_tiles<Avx512Vnni>();

}  // namespace salient::quant
#endif
