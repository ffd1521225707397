// The scale searches behind ggml's block formats, for eight groups of weights at a time.
//
// Byte equality with ggml is wanted, and ggml adds up a group's terms one after the other in float32. So a group is never spread
// over vector lanes; eight groups are: each lane does for its group exactly what ggml's scalar loop does, in its order and without
// fused multiply-adds
// (-ffp-contract=off), and the groups come out as if they had been searched one by one.
//
// Arrays of eight groups are interleaved: element l of group g stands at [l * kGgmlLanes + g]. Weights of elements are not
// negative, all values finite.
#pragma once

#include <cstdint>

namespace salient::quant {

inline constexpr int kGgmlLanes = 8;
inline constexpr int kMaxGgmlGroup = 32;  // elements of the longest group

// Rounds to the nearest integer, ties to even. Outside of +-2^22 the result is garbage, but the same garbage as ggml's.
int round_as_ggml(float value);

// Which scales search_scale_and_min tries: (levels + first + step * t) / (max - min) is the inverse of the t-th one, t = 0 ..
// steps.
struct MinSearch {
  int levels = 15;  // the largest code
  float first = -1.0f;
  float step = 0.1f;
  int steps = 20;
};

// x ~ scale * code - min, codes 0 .. levels, min >= 0: after the range of the group, codes are made with each of the tried scales,
// scale and min are fitted to them by weighted least squares, and the codes of the least weighted squared error stay. x, weights:
// float32 [group, 8]; scale, min: float32 [8]; codes: uint8 [group, 8]. A constant group gives scale 0 and codes 0.
void search_scale_and_min(const float* x, const float* weights, int group, const MinSearch& search, float* scale, float* min,
                          uint8_t* codes);

// x ~ scale * (code - levels), codes 0 .. 2 * levels - 1; the scale has the sign that lets the element of largest magnitude use the
// longer, negative side. Of 19 scales around that range the one whose least-squares fit explains most of the weighted squares.
// Shapes as above. A group of magnitude below 1e-15 gives scale 0 and codes 0.
void search_scale(const float* x, const float* weights, int group, int levels, float* scale, uint8_t* codes);

// x ~ scale * code, codes 0 .. levels, for one group of x >= 0 that lies in a row: the second level of the K formats, where the
// eight scales (or mins) of a block are themselves quantized. Returns the scale.
float fit_scale(const float* x, const float* weights, int group, int levels, uint8_t* codes);

}  // namespace salient::quant
