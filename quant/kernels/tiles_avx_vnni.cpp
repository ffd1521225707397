#if defined(__x86_64__)
#include "quant/kernels/lanes_256.h"

namespace salient::quant {
namespace {

struct AvxVnni : Lanes256 {
  static __m256i add_dot(__m256i acc, __m256i codes, __m256i x) { return _mm256_dpbusd_avx_epi32(acc, codes, x); }

  template <int Bits, int R>
  static void add_dots(const uint8_t* codes, int64_t padded_group, const int8_t* x, int64_t stride, Int* acc) {
    if constexpr (Bits == 4) {
      const __m256i mask = _mm256_set1_epi8(15);
      for (int64_t k = 0; k < padded_group; k += 8) {
        prefetch(codes + k * kLanes / 2);
        const __m256i first = load_half_line(codes + k * kLanes / 2);
        const __m256i second = load_half_line(codes + k * kLanes / 2 + 32);
        for (int r = 0; r < R; ++r) {
          const __m256i x_low = splat_word(x + r * stride + k);
          const __m256i x_high = splat_word(x + r * stride + k + 4);
          acc[r].low = add_dot(acc[r].low, _mm256_and_si256(first, mask), x_low);
          acc[r].high = add_dot(acc[r].high, _mm256_and_si256(second, mask), x_low);
          acc[r].low = add_dot(acc[r].low, _mm256_and_si256(_mm256_srli_epi16(first, 4), mask), x_high);
          acc[r].high = add_dot(acc[r].high, _mm256_and_si256(_mm256_srli_epi16(second, 4), mask), x_high);
        }
      }
    } else {
      for (int64_t k = 0; k < padded_group; k += 4) {
        prefetch(codes + k * kLanes);
        for (int r = 0; r < R; ++r) {
          const __m256i word = splat_word(x + r * stride + k);
          acc[r].low = add_dot(acc[r].low, load_half_line(codes + k * kLanes), word);
          acc[r].high = add_dot(acc[r].high, load_half_line(codes + k * kLanes + 32), word);
        }
      }
    }
  }

  template <int Bits, int C>
  static void add_panel(const uint8_t* const* codes, int64_t steps, const int8_t* x, Int (*acc)[kPanelRows]) {
    static_assert(C == 1);
    for (int64_t step = 0; step < steps; ++step) {
      const __m256i first = load_half_line(codes[0] + step * kLineBytes);
      const __m256i second = load_half_line(codes[0] + step * kLineBytes + 32);
      for (int64_t r = 0; r < kPanelRows; ++r) {
        const __m256i word = splat_word(x + (step * kPanelRows + r) * 4);
        acc[0][r].low = add_dot(acc[0][r].low, first, word);
        acc[0][r].high = add_dot(acc[0][r].high, second, word);
      }
    }
  }
};

}  // namespace

const TileKernels kAvxVnniTiles = make_tiles<AvxVnni>();

}  // namespace salient::quant
#endif
