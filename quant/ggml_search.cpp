#include "quant/ggml_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "quant/clones.h"

namespace salient::quant {
namespace {

constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
constexpr float kNothing = 1e-15f;     // magnitudes below count as zero

// One value of each of the eight groups: a register of the wider instruction sets, several of the narrower ones.
using Floats = float __attribute__((vector_size(kGgmlLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kGgmlLanes * sizeof(int32_t))));

// Inlined always: what these become depends on the instruction set of the function around them.
#define SALIENT_LANES [[gnu::always_inline]] inline

SALIENT_LANES void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }
SALIENT_LANES void store(const Floats& from, float* to) { std::memcpy(to, &from, sizeof(from)); }

SALIENT_LANES bool any(const Ints& mask) {
  int32_t lanes[kGgmlLanes];
  std::memcpy(lanes, &mask, sizeof(lanes));
  int32_t result = 0;
  for (const int32_t lane : lanes) result |= lane;
  return result != 0;
}

// The codes of `scaled` as whole numbers in floats.
SALIENT_LANES void to_codes(const Floats& scaled, int low, int high, Floats& codes) {
  Ints code = ((Ints)(scaled + kRound) & 0x007fffff) - 0x00400000;
  const Ints lowest = Ints{} + low;
  const Ints highest = Ints{} + high;
  code = code < lowest ? lowest : code;
  code = code > highest ? highest : code;
  codes = __builtin_convertvector(code, Floats);
}

SALIENT_LANES void store_codes(const Floats* codes, int group, float offset, uint8_t* to) {
  for (int l = 0; l < group; ++l) {
    float lanes[kGgmlLanes];
    store(codes[l] + offset, lanes);
    for (int g = 0; g < kGgmlLanes; ++g) to[l * kGgmlLanes + g] = static_cast<uint8_t>(lanes[g]);
  }
}

}  // namespace

int round_as_ggml(float value) { return static_cast<int>(std::bit_cast<uint32_t>(value + kRound) & 0x007fffffu) - 0x00400000; }

SALIENT_CLONES void search_scale_and_min(const float* x, const float* weights, int group, const MinSearch& search, float* scale_out,
                                         float* min_out, uint8_t* codes_out) {
  Floats codes[kMaxGgmlGroup];
  Floats trial[kMaxGgmlGroup];
  Floats value, weight;
  load(x, value);
  load(weights, weight);
  Floats min = value;
  Floats max = value;
  Floats sum_w = weight;
  Floats sum_x = weight * value;
  for (int l = 1; l < group; ++l) {
    load(x + l * kGgmlLanes, value);
    load(weights + l * kGgmlLanes, weight);
    min = value < min ? value : min;
    max = value > max ? value : max;
    sum_w += weight;
    sum_x += weight * value;
  }
  const Floats zero{};
  min = min > zero ? zero : min;
  const Ints constant = max <= min;

  const Floats levels = zero + static_cast<float>(search.levels);
  Floats inverse = levels / (max - min);
  Floats scale = 1.0f / inverse;
  Floats error = zero;
  for (int l = 0; l < group; ++l) {
    load(x + l * kGgmlLanes, value);
    load(weights + l * kGgmlLanes, weight);
    to_codes(inverse * (value - min), 0, search.levels, codes[l]);
    const Floats difference = scale * codes[l] + min - value;
    error += weight * (difference * difference);
  }
  for (int t = 0; t <= search.steps; ++t) {
    inverse = (search.first + search.step * static_cast<float>(t) + levels) / (max - min);
    Floats sum_l = zero;
    Floats sum_ll = zero;
    Floats sum_xl = zero;
    for (int l = 0; l < group; ++l) {
      load(x + l * kGgmlLanes, value);
      load(weights + l * kGgmlLanes, weight);
      to_codes(inverse * (value - min), 0, search.levels, trial[l]);
      const Floats weighted = weight * trial[l];
      sum_l += weighted;
      sum_ll += weighted * trial[l];
      sum_xl += weighted * value;
    }
    const Floats determinant = sum_w * sum_ll - sum_l * sum_l;
    Floats fitted = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    Floats fitted_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
    const Ints positive = fitted_min > zero;
    fitted = positive ? sum_xl / sum_ll : fitted;
    fitted_min = positive ? zero : fitted_min;
    Floats fitted_error = zero;
    for (int l = 0; l < group; ++l) {
      load(x + l * kGgmlLanes, value);
      load(weights + l * kGgmlLanes, weight);
      const Floats difference = fitted * trial[l] + fitted_min - value;
      fitted_error += weight * (difference * difference);
    }
    const Ints better = (determinant > zero) & (fitted_error < error);
    if (!any(better)) continue;
    error = better ? fitted_error : error;
    scale = better ? fitted : scale;
    min = better ? fitted_min : min;
    for (int l = 0; l < group; ++l) codes[l] = better ? trial[l] : codes[l];
  }
  scale = constant ? zero : scale;
  min = -min;  // not zero - min: a zero keeps its sign
  for (int l = 0; l < group; ++l) codes[l] = constant ? zero : codes[l];
  store(scale, scale_out);
  store(min, min_out);
  store_codes(codes, group, 0.0f, codes_out);
}

SALIENT_CLONES void search_scale(const float* x, const float* weights, int group, int levels, float* scale_out,
                                 uint8_t* codes_out) {
  const Floats zero{};
  Floats codes[kMaxGgmlGroup];
  Floats trial[kMaxGgmlGroup];
  Floats value, weight;
  Floats magnitude = zero;
  Floats extreme = zero;
  for (int l = 0; l < group; ++l) {
    load(x + l * kGgmlLanes, value);
    const Floats absolute = value < zero ? -value : value;
    const Ints larger = absolute > magnitude;
    magnitude = larger ? absolute : magnitude;
    extreme = larger ? value : extreme;
  }
  const Ints nothing = magnitude < kNothing;
  Floats scale = zero;
  Floats best = zero;
  // The plain range first: it is taken as it is.
  for (int attempt = -1; attempt <= 18; ++attempt) {
    const int t = attempt < 0 ? 0 : attempt - 9;
    if (attempt >= 0 && t == 0) continue;
    const Floats inverse = (zero - (static_cast<float>(levels) + 0.1f * static_cast<float>(t))) / extreme;
    Floats sum_xl = zero;
    Floats sum_ll = zero;
    for (int l = 0; l < group; ++l) {
      load(x + l * kGgmlLanes, value);
      load(weights + l * kGgmlLanes, weight);
      to_codes(inverse * value, -levels, levels - 1, trial[l]);
      sum_xl += weight * value * trial[l];
      sum_ll += weight * trial[l] * trial[l];
    }
    if (attempt < 0) {
      scale = sum_ll != zero ? sum_xl / sum_ll : zero;
      best = scale * sum_xl;
      for (int l = 0; l < group; ++l) codes[l] = trial[l];
      continue;
    }
    const Ints better = (sum_ll > zero) & (sum_xl * sum_xl > best * sum_ll);
    if (!any(better)) continue;
    scale = better ? sum_xl / sum_ll : scale;
    best = better ? scale * sum_xl : best;
    for (int l = 0; l < group; ++l) codes[l] = better ? trial[l] : codes[l];
  }
  scale = nothing ? zero : scale;
  const Floats lowest = zero - static_cast<float>(levels);
  for (int l = 0; l < group; ++l) codes[l] = nothing ? lowest : codes[l];
  store(scale, scale_out);
  store_codes(codes, group, static_cast<float>(levels), codes_out);
}

float fit_scale(const float* x, const float* weights, int group, int levels, uint8_t* codes) {
  float max = 0.0f;
  for (int i = 0; i < group; ++i) max = std::max(max, x[i]);
  if (max < kNothing) {
    std::fill_n(codes, group, uint8_t{0});
    return 0.0f;
  }
  const auto top = static_cast<float>(levels);
  const auto squared_error = [&](float inverse, bool clamped) {
    const float scale = 1.0f / inverse;
    float sum = 0.0f;
    for (int i = 0; i < group; ++i) {
      const int code = round_as_ggml(inverse * x[i]);
      const float difference = x[i] - scale * static_cast<float>(clamped ? std::min(levels, code) : code);
      sum += weights[i] * difference * difference;
    }
    return sum;
  };
  float inverse = top / max;
  float least = squared_error(inverse, false);
  for (int t = -4; t <= 4; ++t) {
    if (t == 0) continue;
    const float tried = (0.1f * static_cast<float>(t) + top) / max;
    const float error = squared_error(tried, true);
    if (error < least) {
      least = error;
      inverse = tried;
    }
  }
  float sum_xl = 0.0f;
  float sum_ll = 0.0f;
  for (int i = 0; i < group; ++i) {
    const int code = std::min(levels, round_as_ggml(inverse * x[i]));
    codes[i] = static_cast<uint8_t>(code);
    sum_xl += weights[i] * x[i] * static_cast<float>(code);
    sum_ll += weights[i] * static_cast<float>(code) * static_cast<float>(code);
  }
  // One code at a time is moved to where the others want it.
  for (int sweep = 0; sweep < 5; ++sweep) {
    bool changed = false;
    for (int i = 0; i < group; ++i) {
      const float code = codes[i];
      float others_xl = sum_xl - weights[i] * x[i] * code;
      float others_ll = sum_ll - weights[i] * code * code;
      if (!(others_xl > 0.0f && others_ll > 0.0f)) continue;
      const int moved = std::min(levels, round_as_ggml(x[i] * others_ll / others_xl));
      if (moved == codes[i]) continue;
      others_xl += weights[i] * x[i] * static_cast<float>(moved);
      others_ll += weights[i] * static_cast<float>(moved) * static_cast<float>(moved);
      if (others_xl * others_xl * sum_ll > sum_xl * sum_xl * others_ll) {
        codes[i] = static_cast<uint8_t>(moved);
        sum_xl = others_xl;
        sum_ll = others_ll;
        changed = true;
      }
    }
    if (!changed) break;
  }
  return sum_ll > 0.0f ? sum_xl / sum_ll : 0.0f;
}

}  // namespace salient::quant
