// Rotary position embeddings (Su et al., arXiv 2104.09864) in the kinds that config.json names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/decoder/config_reader.h"

namespace salient::models {

enum class RopeKind : uint8_t { kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };

std::string_view to_string(RopeKind kind);  // as config.json spells it: "llama3"

// Which channels are the parts of one complex number.
enum class RopePairs : uint8_t {
  kHalves,      // channel i and i + dim/2 (Llama)
  kNeighbours,  // channels 2i and 2i + 1 (GPT-J, Cohere, GLM, DeepSeek)
};

struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  RopePairs pairs = RopePairs::kHalves;
  int64_t dim = 0;            // rotated channels: the first of each head; even
  int64_t frequency_dim = 0;  // frequency i is theta^(-2i / frequency_dim); 0 = dim. An odd part is rounded up in dim only.
  double theta = 10000.0;
  double factor = 1.0;                           // linear, dynamic, yarn, llama3, longrope
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  int64_t max_position_embeddings = 0;           // dynamic
  int64_t original_max_position_embeddings = 0;  // llama3, yarn, longrope
  double attention_factor = 1.0;                 // yarn, longrope: of cosines and sines; derived where it is not given
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;                        // yarn
  bool truncate = true;                          // yarn: whole channels bound the ramp
  std::vector<double> short_factor;              // longrope, [dim / 2]
  std::vector<double> long_factor;               // longrope, [dim / 2]
};

// What an architecture's configuration class assumes.
struct RopeDefaults {
  double theta = 10000.0;
  double partial_rotary_factor = 1.0;  // of head_dim
  RopePairs pairs = RopePairs::kHalves;
  int64_t head_dim = 0;
};

// The rotary embedding of a model with one: "rope_parameters" (transformers 5), or "rope_theta" + "rope_scaling" (before; wins
// where both are there). `config`: the whole config.json. Errors: corruption, unsupported (a rope_type that is not known).
//
// rope_theta may be called "rotary_emb_base" (GPT-NeoX) and partial_rotary_factor "rotary_pct" or "rope_pct" in `config`;
// original_max_position_embeddings of `config` wins over that of the object.
RopeConfig parse_rope(const ConfigReader& config, const RopeDefaults& defaults, int64_t max_position_embeddings);

// The same from one object with rope_type, rope_theta, ...: for models whose rope_parameters hold one object a layer type. `config`
// is asked for what the object leaves out (rope_theta, partial_rotary_factor, original_max_position_embeddings).
RopeConfig parse_rope_object(const ConfigReader& parameters, const ConfigReader& config, const RopeDefaults& defaults,
                             int64_t max_position_embeddings);

// 0.1 * mscale * ln(factor) + 1, but 1 for a factor up to 1 (YaRN, arXiv 2309.00071, section 3.4). DeepSeek also scales its softmax
// by the square of this, of "factor" and "mscale_all_dim".
double yarn_magnitude(double factor, double mscale);

// float32 [dim / 2]: radians a position. `length`: of the row, for the kinds whose angles follow it.
at::Tensor inverse_frequencies(const RopeConfig& rope, int64_t length);

struct RotaryTable {
  at::Tensor cos;  // [batch or 1, 1, tokens, dim], every angle twice, in the order of `pairs`
  at::Tensor sin;  // the same
};

// Rows longer than this have other angles than shorter ones, so that keys and values which a cache kept of a shorter row are of no
// use; 0 = there is no such length. (kDynamic changes them with every position after it.)
int64_t angles_change_after(const RopeConfig& rope);

// position_ids: int64 [batch or 1, tokens], on the device of the result. Angles in float32. Where they follow the length, it is
// that of the row: its largest position and one. (transformers takes the longest row of a batch; so a row's result would depend on
// the others.)
RotaryTable make_rotary_table(const RopeConfig& rope, const at::Tensor& position_ids, at::ScalarType dtype);

// x: [batch, heads, tokens, head_dim]: its first rope.dim channels turned, the others as they are. In the wider of the two types,
// then in x's.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table, RopePairs pairs);

// The same of one head of one token in float32, for kHalves, in this thread. x, to: [width], not the same; cos, sin: [dim].
void rotate_head(const float* x, const float* cos, const float* sin, int64_t dim, int64_t width, float* to);

}  // namespace salient::models
