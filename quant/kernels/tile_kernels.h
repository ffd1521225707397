// The innermost loops of the products in quant/kernels, once for each instruction set, and the plain structs they work on.
//
// This header and quant/kernels/tile_template.h are included by sources that are compiled for processors which this one need not
// be. They must not bring in inline functions of the standard library or of libtorch: the linker keeps one copy of those, and it
// could be the one with the wrong instructions.
#pragma once

#include <cstdint>

namespace salient::quant {

inline constexpr int64_t kTileChannels = 16;  // output channels that are interleaved
inline constexpr int64_t kLineBytes = 64;     // kTileChannels words of 4 bytes
inline constexpr int64_t kGroupAlign = 8;     // input channels: what a line holds of 4-bit codes
// Bytes of a weight that few_rows asks for, into the second level cache, before it reads them: the processor's own prefetching ends
// with each page of 4 KB, and what is asked for into the first level is limited by its few places for misses. Measured with AVX-512
// on two cores, one row of 3072 x 1024 weights, as a share of what plain reading gives (median of 25 turns, two runs): first level,
// 8192 bytes ahead 0.98 and 1.03; second level, 1024: 1.05, 1.13; 2048: 1.06, 1.16; 4096: 1.06, 1.14; 8192: 1.02, 1.09.
inline constexpr int64_t kPrefetchBytes = 4096;
inline constexpr int64_t kPrefetchGroups = 16;
inline constexpr int64_t kFewRows = 4;      // most rows that few_rows takes
inline constexpr int64_t kMaxHalfRows = 4;  // and half_rows
inline constexpr int64_t kMaxQueries = 4;   // and find_logits
// The largest tile that float_tile takes (of more channels where there are at most kFloatInputs input channels, which it works on
// at a time), and its scratch: together in the second level cache.
inline constexpr int64_t kFloatTileRows = 240;
inline constexpr int64_t kFloatTileChannels = 192;
inline constexpr int64_t kFloatInputs = 256;
inline constexpr int64_t kFloatScratch =
    kFloatTileRows * (kFloatInputs + kFloatTileChannels + 2 * kTileChannels) + 2 * kTileChannels * kFloatInputs;

enum class ScaleType : uint8_t { kFloat16, kBfloat16, kFloat32 };

// A weight in the layout of quant/kernels/interleaved_weight.h.
struct WeightView {
  int64_t out_features = 0;
  int64_t groups = 0;
  int64_t padded_group = 0;        // input channels of a group, rounded up to kGroupAlign
  int bits = 4;                    // of storage: 4 or 8
  const uint8_t* codes = nullptr;  // [tiles, groups, padded_group * kTileChannels * bits / 8]
  const uint8_t* zeros = nullptr;  // [tiles, groups, kTileChannels]
  const void* scales = nullptr;    // the same
  ScaleType scale_type = ScaleType::kFloat16;
};

// Rows of activations in 8 bits.
struct RowsView {
  int64_t rows = 0;
  const int8_t* codes = nullptr;  // [rows, groups, padded_group], 0 in the padding
  const float* scales = nullptr;  // [rows]
  const int32_t* sums = nullptr;  // [rows, groups], of the codes
};

// The same rows, panel_rows of them together, 4 input channels of each next to each other. The last panel is filled with zeros.
struct PanelsView {
  int64_t rows = 0;
  const int8_t* codes = nullptr;  // [panels, groups, padded_group / 4, panel_rows, 4]
  const float* scales = nullptr;  // [rows]
  const int32_t* sums = nullptr;  // [panels, groups, panel_rows]
};

struct HalfView {
  int64_t in_features = 0;
  int64_t out_features = 0;
  const uint16_t* values = nullptr;  // [out_features, in_features], float16 or bfloat16 bits
  bool is_bfloat16 = false;
};

// Keys or values of one head of one row of a batch: `numbers`, or int8 `codes` with `scales`.
struct CachedHead {
  const float* numbers = nullptr;
  const int8_t* codes = nullptr;
  int64_t stride = 0;  // of a token
  int64_t dim = 0;     // numbers of a token
  const float* scales = nullptr;
  int64_t scale_stride = 0;  // of a token; 0 = one for all
};

// Which entries of a square tile of a result are wanted; what becomes of the others is not defined.
enum class Triangle : uint8_t { kWhole, kUpper, kLower };  // both with the diagonal

// A part of a product in float32: y[r, c] = sum over k of x[r, k] * weight[c, k], or y[r, c] += share * that sum.
struct FloatTile {
  const float* x = nullptr;  // [rows, in_features], x_stride apart; x_turned: [in_features, rows]
  int64_t x_stride = 0;
  bool x_turned = false;
  int64_t rows = 0;  // at most kFloatTileRows
  int64_t in_features = 0;
  const float* weight = nullptr;  // [channels, in_features], weight_stride apart; weight_turned: [in_features, channels]
  int64_t weight_stride = 0;
  bool weight_turned = false;
  int64_t channels = 0;   // at most kFloatTileChannels where in_features > kFloatInputs
  int64_t diagonal = -1;  // from 0 on: weight[c, k] counts for 0 where k > diagonal + c, and for half where they are equal
  Triangle wanted = Triangle::kWhole;
  bool adds = false;
  float share = 1;
  float* y = nullptr;  // [rows, channels], y_stride apart
  int64_t y_stride = 0;
};

struct TileKernels {
  int64_t panel_rows;  // rows that many_rows works on at a time
  int64_t panel_tiles;
  int64_t block_rows;  // rows for which one group of weights is unpacked once; a multiple of panel_rows

  // Output channels of the tiles [begin, end) for x.rows <= kFewRows. y: [rows, out_features].
  void (*few_rows)(const WeightView& weight, const RowsView& x, int64_t begin, int64_t end, float* y);
  // The same for any number of rows. totals: scratch of block_rows * panel_tiles * kTileChannels; unpacked: scratch of
  // padded_group * panel_tiles * kTileChannels bytes, both aligned to 64 bytes.
  void (*many_rows)(const WeightView& weight, const PanelsView& x, int64_t begin, int64_t end, float* totals, uint8_t* unpacked,
                    float* y);
  // y[r, n] = sum over k of x[r, k] * weight[n, k] for the output channels n in [begin, end) and rows <= kMaxHalfRows.
  void (*half_rows)(const HalfView& weight, const float* x, int64_t rows, int64_t begin, int64_t end, float* y);
  // scratch: kFloatScratch numbers.
  void (*float_tile)(const FloatTile& tile, float* scratch);
  // logits[i, t] = queries[i] . keys[t] * scale, for `count` <= kMaxQueries queries, `query_stride` apart. logits: [count, total].
  void (*find_logits)(const float* queries, int64_t query_stride, int64_t count, const CachedHead& keys, int64_t total, float scale,
                      float* logits);
  // out[i] = sum over t, in order, of shares[i, t] * values[t]. out: [count, values.dim].
  void (*sum_values)(const float* shares, int64_t count, const CachedHead& values, int64_t total, float* out);
};

extern const TileKernels kPortableTiles;
#if defined(__x86_64__)
extern const TileKernels kAvx2Tiles;
extern const TileKernels kAvxVnniTiles;
extern const TileKernels kAvx512VnniTiles;
#endif

}  // namespace salient::quant
