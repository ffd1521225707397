// Plain C++: the reference, and what processors without the other instruction sets run.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "quant/kernels/tile_template.h"

namespace salient::quant {
namespace {

struct Portable {
  struct Int {
    int32_t lane[kLanes];
  };
  struct Float {
    float lane[kLanes];
  };
  static constexpr int64_t kPanelRows = 4;
  static constexpr int kPanelTiles = 1;
  static constexpr int kHalfChannels = 1;
  static constexpr int64_t kBlockRows = 64;
  static constexpr int kValueSums = 2;
  static constexpr int kFloatRows = 4;
  static constexpr int kFloatVectors = 1;
  static constexpr int kTurned = 4;

  template <typename Of>
  static Float each(Of of) {
    Float result;
    for (int64_t i = 0; i < kLanes; ++i) result.lane[i] = of(i);
    return result;
  }

  static Int load_zeros(const uint8_t* bytes) {
    Int result;
    for (int64_t i = 0; i < kLanes; ++i) result.lane[i] = bytes[i];
    return result;
  }
  static Int negative_product(const Int& lanes, int32_t value) {
    Int result;
    for (int64_t i = 0; i < kLanes; ++i) result.lane[i] = -lanes.lane[i] * value;
    return result;
  }
  static Float to_float(const Int& lanes) {
    return each([&](int64_t i) { return static_cast<float>(lanes.lane[i]); });
  }
  static Float no_floats() { return splat(0.0F); }
  static Float splat(float value) {
    return each([&](int64_t) { return value; });
  }
  static Float load(const float* from) {
    return each([&](int64_t i) { return from[i]; });
  }
  static Float load_codes(const int8_t* from) {
    return each([&](int64_t i) { return static_cast<float>(from[i]); });
  }
  static Float load_float16(const uint16_t* from) {
    return each([&](int64_t i) { return static_cast<float>(c10::Half(from[i], c10::Half::from_bits())); });
  }
  static Float load_bfloat16(const uint16_t* from) {
    return each([&](int64_t i) { return static_cast<float>(c10::BFloat16(from[i], c10::BFloat16::from_bits())); });
  }
  static void store(const Float& values, float* to) {
    for (int64_t i = 0; i < kLanes; ++i) to[i] = values.lane[i];
  }
  static Float add(const Float& a, const Float& b) {
    return each([&](int64_t i) { return a.lane[i] + b.lane[i]; });
  }
  static Float multiply(const Float& a, const Float& b) {
    return each([&](int64_t i) { return a.lane[i] * b.lane[i]; });
  }
  static Float multiply_add(const Float& a, const Float& b, const Float& c) { return add(multiply(a, b), c); }
  static float total(const Float& values) {
    float sum = 0.0F;
    for (int64_t i = 0; i < kLanes; ++i) sum += values.lane[i];
    return sum;
  }

  static void turn(const float* from, int64_t stride, Float (&to)[kTurned]) {
    for (int64_t j = 0; j < kTurned; ++j) {
      for (int64_t i = 0; i < kLanes; ++i) to[j].lane[i] = from[i * stride + j];
    }
  }

  static void add_line(const uint8_t* line, int shift, int mask, const int8_t* x, Int& acc) {
    for (int64_t c = 0; c < kLanes; ++c) {
      for (int64_t i = 0; i < 4; ++i) acc.lane[c] += ((line[4 * c + i] >> shift) & mask) * x[i];
    }
  }

  template <int Bits, int R>
  static void add_dots(const uint8_t* codes, int64_t padded_group, const int8_t* x, int64_t stride, Int* acc) {
    for (int64_t k = 0; k < padded_group; k += 4) {
      for (int64_t r = 0; r < R; ++r) {
        if constexpr (Bits == 4) {
          add_line(codes + k / 8 * kLineBytes, static_cast<int>(k % 8), 15, x + r * stride + k, acc[r]);
        } else {
          add_line(codes + k / 4 * kLineBytes, 0, 255, x + r * stride + k, acc[r]);
        }
      }
    }
  }

  template <int Bits, int C>
  static void add_panel(const uint8_t* const* codes, int64_t steps, const int8_t* x, Int (*acc)[kPanelRows]) {
    for (int64_t s = 0; s < steps; ++s) {
      for (int c = 0; c < C; ++c) {
        for (int64_t r = 0; r < kPanelRows; ++r)
          add_line(codes[c] + s * kLineBytes, 0, 255, x + (s * kPanelRows + r) * 4, acc[c][r]);
      }
    }
  }
};

}  // namespace

const TileKernels kPortableTiles = make_tiles<Portable>();

}  // namespace salient::quant
