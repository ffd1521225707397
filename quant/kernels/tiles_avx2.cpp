#if defined(__x86_64__)
#include "quant/kernels/lanes_256.h"

namespace salient::quant {
namespace {

// maddubs multiplies unsigned by signed bytes and adds pairs into 16 bits, with saturation: |15 * -128 * 2| = 3840, and 8 of them,
// 30720, still fit. Codes of up to 8 bits do not, and are widened to 16 bits: even and odd bytes apart, so that a lane keeps its
// channel.
struct Avx2 : Lanes256 {
  static constexpr int64_t kDotsIn16Bits = 8;

  static __m256i odd_bytes(__m256i bytes) { return _mm256_srai_epi16(bytes, 8); }
  static __m256i even_bytes(__m256i bytes) { return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8); }

  // sums + codes * x in 16 bits. The empty asm ties each addition to its place: GCC 12 would compute all products first, and run
  // out of registers.
  static void add_products(__m256i& sums, __m256i codes, __m256i x) {
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x));
    asm("" : "+x"(sums));
  }

  static void add_pairs(__m256i pairs, __m256i& acc) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // codes: unsigned bytes, one register of 8 channels; x: the same 4 inputs in all lanes.
  static void add_wide(__m256i codes, __m256i x_even, __m256i x_odd, __m256i& acc) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)), x_even);
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), x_odd);
    acc = _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
  }

  template <int Bits, int R>
  static void add_dots(const uint8_t* codes, int64_t padded_group, const int8_t* x, int64_t stride, Int* acc) {
    if constexpr (Bits == 4) {
      const __m256i mask = _mm256_set1_epi8(15);
      const int64_t lines = padded_group / 8;
      for (int64_t line = 0; line < lines;) {
        __m256i low[R];
        __m256i high[R];
        for (int r = 0; r < R; ++r) low[r] = high[r] = _mm256_setzero_si256();
        const int64_t last = line + kDotsIn16Bits / 2 < lines ? line + kDotsIn16Bits / 2 : lines;
        for (; line < last; ++line) {
          prefetch(codes + line * kLineBytes);
          const __m256i first = load_half_line(codes + line * kLineBytes);
          const __m256i second = load_half_line(codes + line * kLineBytes + 32);
          const __m256i first_low = _mm256_and_si256(first, mask);
          const __m256i first_high = _mm256_and_si256(_mm256_srli_epi16(first, 4), mask);
          const __m256i second_low = _mm256_and_si256(second, mask);
          const __m256i second_high = _mm256_and_si256(_mm256_srli_epi16(second, 4), mask);
          for (int r = 0; r < R; ++r) {
            const __m256i x_low = splat_word(x + r * stride + line * 8);
            const __m256i x_high = splat_word(x + r * stride + line * 8 + 4);
            low[r] = _mm256_add_epi16(
                low[r], _mm256_add_epi16(_mm256_maddubs_epi16(first_low, x_low), _mm256_maddubs_epi16(first_high, x_high)));
            high[r] = _mm256_add_epi16(
                high[r], _mm256_add_epi16(_mm256_maddubs_epi16(second_low, x_low), _mm256_maddubs_epi16(second_high, x_high)));
          }
        }
        for (int r = 0; r < R; ++r) {
          add_pairs(low[r], acc[r].low);
          add_pairs(high[r], acc[r].high);
        }
      }
    } else {
      for (int64_t k = 0; k < padded_group; k += 4) {
        prefetch(codes + k * kLanes);
        const __m256i first = load_half_line(codes + k * kLanes);
        const __m256i second = load_half_line(codes + k * kLanes + 32);
        for (int r = 0; r < R; ++r) {
          const __m256i word = splat_word(x + r * stride + k);
          add_wide(first, even_bytes(word), odd_bytes(word), acc[r].low);
          add_wide(second, even_bytes(word), odd_bytes(word), acc[r].high);
        }
      }
    }
  }

  template <int Bits, int C>
  static void add_panel(const uint8_t* const* codes, int64_t steps, const int8_t* x, Int (*acc)[kPanelRows]) {
    static_assert(C == 1);
    if constexpr (Bits == 4) {
      for (int64_t step = 0; step < steps;) {
        __m256i low[kPanelRows];
        __m256i high[kPanelRows];
        for (int64_t r = 0; r < kPanelRows; ++r) low[r] = high[r] = _mm256_setzero_si256();
        const int64_t last = step + kDotsIn16Bits < steps ? step + kDotsIn16Bits : steps;
        for (; step < last; ++step) {
          const __m256i first = load_half_line(codes[0] + step * kLineBytes);
          const __m256i second = load_half_line(codes[0] + step * kLineBytes + 32);
          for (int64_t r = 0; r < kPanelRows; ++r) {
            const __m256i word = splat_word(x + (step * kPanelRows + r) * 4);
            add_products(low[r], first, word);
            add_products(high[r], second, word);
          }
        }
        for (int64_t r = 0; r < kPanelRows; ++r) {
          add_pairs(low[r], acc[0][r].low);
          add_pairs(high[r], acc[0][r].high);
        }
      }
    } else {
      for (int64_t step = 0; step < steps; ++step) {
        const __m256i first = load_half_line(codes[0] + step * kLineBytes);
        const __m256i second = load_half_line(codes[0] + step * kLineBytes + 32);
        for (int64_t r = 0; r < kPanelRows; ++r) {
          const __m256i word = splat_word(x + (step * kPanelRows + r) * 4);
          add_wide(first, even_bytes(word), odd_bytes(word), acc[0][r].low);
          add_wide(second, even_bytes(word), odd_bytes(word), acc[0][r].high);
        }
      }
    }
  }
};

}  // namespace

const TileKernels kAvx2Tiles = make_tiles<Avx2>();

}  // namespace salient::quant
#endif
