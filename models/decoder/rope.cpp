#include "models/decoder/rope.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "common/error.h"
#include "quant/clones.h"

// The arithmetic follows transformers' modeling_rope_utils (5.23) operation by operation: a float32 angle of a late position is so
// large that another order of the same operations shows in the fourth digit of its cosine.

namespace salient::models {
namespace {

constexpr int64_t kParallelElements = 16384;  // that are worth a thread

struct Name {
  std::string_view text;
  RopeKind kind;
};
constexpr Name kNames[] =
    {
        {"default", RopeKind::kDefault}, {"linear", RopeKind::kLinear},     {"dynamic", RopeKind::kDynamic},
        {"yarn", RopeKind::kYarn},       {"longrope", RopeKind::kLongRope}, {"llama3", RopeKind::kLlama3},
        {"su", RopeKind::kLongRope},    // what the first Phi-3 files call it
        {"mrope", RopeKind::kDefault},  // Qwen-VL: the same as default for text
};

RopeKind parse_kind(const ConfigReader& parameters) {
  const std::string_view key = parameters.spelling({"rope_type", "type"});
  const std::string name = parameters.text_or(key, "default");
  const auto* const row = std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& n) { return n.text == name; });
  if (row == std::end(kNames)) {
    fail(ErrorKind::kUnsupported, "{}: {} '{}' is not supported, only default, linear, dynamic, yarn, longrope and llama3",
         parameters.where(), key, name);
  }
  // Phi-3's configuration class takes "yarn" for "longrope"; only the latter has a factor for each channel.
  if (row->kind == RopeKind::kYarn && parameters.has("long_factor")) return RopeKind::kLongRope;
  return row->kind;
}

struct Channels {
  int64_t rotated = 0;
  int64_t period = 0;
};
Channels parse_channels(const ConfigReader& parameters, const ConfigReader& config, const RopeDefaults& defaults) {
  const std::string_view key = config.spelling({"partial_rotary_factor", "rotary_pct", "rope_pct"});
  const double partial = parameters.positive_or("partial_rotary_factor", config.positive_or(key, defaults.partial_rotary_factor));
  const double period = std::floor(static_cast<double>(defaults.head_dim) * partial);
  const double rotated = 2.0 * std::ceil(period / 2.0);
  if (period < 1.0 || rotated > static_cast<double>(defaults.head_dim)) {
    fail(ErrorKind::kCorruption,
         "{}: {} of {} channels a head cannot be rotated in pairs (partial_rotary_factor {}), expected a part of them that is even",
         parameters.where(), period, defaults.head_dim, partial);
  }
  return {static_cast<int64_t>(rotated), static_cast<int64_t>(period)};
}

std::vector<double> parse_channel_factors(const ConfigReader& parameters, std::string_view key, int64_t dim) {
  std::vector<double> factors = parameters.numbers_or_empty(key);
  if (static_cast<int64_t>(factors.size()) != dim / 2) {
    fail(ErrorKind::kCorruption, "{}: key '{}' has {} numbers, expected {}, one for each pair of the {} rotated channels",
         parameters.where(), key, factors.size(), dim / 2, dim);
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0.0))
      fail(ErrorKind::kCorruption, "{}: key '{}[{}]': found {}, expected a positive number", parameters.where(), key, i,
           factors[i]);
  }
  return factors;
}

// What both scalings derive from the lengths where no factor is given.
double factor_or_ratio(const ConfigReader& parameters, const RopeConfig& rope) {
  return parameters.positive_or(
      "factor", static_cast<double>(rope.max_position_embeddings) / static_cast<double>(rope.original_max_position_embeddings));
}

void parse_yarn(RopeConfig& rope, const ConfigReader& parameters) {
  if (rope.dim != rope.frequency_dim) {
    fail(ErrorKind::kUnsupported, "{}: yarn with {} rotated channels is not supported, only an even number of them",
         parameters.where(), rope.frequency_dim);
  }
  if (rope.theta <= 1.0)
    fail(ErrorKind::kCorruption, "{}: yarn with rope_theta {}, expected more than 1", parameters.where(), rope.theta);
  rope.factor = factor_or_ratio(parameters, rope);
  const double mscale = parameters.number_or("mscale", 0.0);
  const double mscale_all_dim = parameters.number_or("mscale_all_dim", 0.0);
  const bool both = mscale != 0.0 && mscale_all_dim != 0.0;
  const double derived =
      both ? yarn_magnitude(rope.factor, mscale) / yarn_magnitude(rope.factor, mscale_all_dim) : yarn_magnitude(rope.factor, 1.0);
  rope.attention_factor = parameters.positive_or("attention_factor", derived);
  // 0 stands for the default, as it does in transformers.
  const auto beta_or = [&](std::string_view key, double fallback) {
    return parameters.number_or(key, 0.0) == 0.0 ? fallback : parameters.positive(key);
  };
  rope.beta_fast = beta_or("beta_fast", rope.beta_fast);
  rope.beta_slow = beta_or("beta_slow", rope.beta_slow);
  rope.truncate = parameters.flag_or("truncate", true);
}

void parse_longrope(RopeConfig& rope, const ConfigReader& parameters) {
  rope.short_factor = parse_channel_factors(parameters, "short_factor", rope.dim);
  rope.long_factor = parse_channel_factors(parameters, "long_factor", rope.dim);
  rope.factor = factor_or_ratio(parameters, rope);
  double derived = 1.0;
  if (rope.factor > 1.0) {
    if (rope.original_max_position_embeddings == 1)
      fail(ErrorKind::kCorruption, "{}: longrope with original_max_position_embeddings 1, expected more", parameters.where());
    derived = std::sqrt(1.0 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_max_position_embeddings)));
  }
  rope.attention_factor = parameters.positive_or("attention_factor", derived);
}

void parse_llama3(RopeConfig& rope, const ConfigReader& parameters) {
  rope.factor = parameters.positive("factor");
  rope.low_freq_factor = parameters.positive("low_freq_factor");
  rope.high_freq_factor = parameters.positive("high_freq_factor");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    fail(ErrorKind::kCorruption, "{}: high_freq_factor {} must be larger than low_freq_factor {}", parameters.where(),
         rope.high_freq_factor, rope.low_freq_factor);
  }
}

// `original`: original_max_position_embeddings where something says so.
RopeConfig parse(const ConfigReader& parameters, const ConfigReader& config, const RopeDefaults& defaults,
                 int64_t max_position_embeddings, std::optional<int64_t> original) {
  RopeConfig rope;
  rope.kind = parse_kind(parameters);
  rope.pairs = defaults.pairs;
  const Channels channels = parse_channels(parameters, config, defaults);
  rope.dim = channels.rotated;
  rope.frequency_dim = channels.period;
  rope.theta =
      parameters.positive_or("rope_theta", config.positive_or(config.spelling({"rotary_emb_base", "rope_theta"}), defaults.theta));
  rope.max_position_embeddings = max_position_embeddings;
  rope.original_max_position_embeddings = original.value_or(max_position_embeddings);

  switch (rope.kind) {
    case RopeKind::kDefault: break;
    case RopeKind::kLinear: rope.factor = parameters.positive("factor"); break;
    case RopeKind::kDynamic:
      rope.factor = parameters.positive("factor");
      if (rope.frequency_dim <= 2)
        fail(ErrorKind::kCorruption, "{}: dynamic scaling of {} channels, expected more", parameters.where(), rope.frequency_dim);
      break;
    case RopeKind::kYarn: parse_yarn(rope, parameters); break;
    case RopeKind::kLongRope: parse_longrope(rope, parameters); break;
    case RopeKind::kLlama3: parse_llama3(rope, parameters); break;
  }
  return rope;
}

std::optional<int64_t> read_original(const ConfigReader& reader) {
  const std::string_view key = "original_max_position_embeddings";
  return reader.has(key) ? std::optional(reader.size(key)) : std::nullopt;
}

// float32 [dim / 2]: 0, 2/dim, 4/dim, ...
at::Tensor exponents(const RopeConfig& rope) {
  const int64_t dim = rope.frequency_dim == 0 ? rope.dim : rope.frequency_dim;
  return at::arange(0, dim, 2, at::kLong).to(at::kFloat) / static_cast<double>(dim);
}

at::Tensor plain_frequencies(const RopeConfig& rope) { return at::reciprocal(at::pow(rope.theta, exponents(rope))); }

// The base grows with the length, so that the longest wave covers it (NTK-aware scaling); up to max_position_embeddings nothing
// changes.
at::Tensor dynamic_frequencies(const RopeConfig& rope, int64_t length) {
  const int64_t limit = rope.max_position_embeddings;
  if (length <= limit) return plain_frequencies(rope);
  const auto dim = static_cast<double>(rope.frequency_dim == 0 ? rope.dim : rope.frequency_dim);
  const at::Tensor stretch = at::scalar_tensor(length, at::kLong) * rope.factor / static_cast<double>(limit) - (rope.factor - 1.0);
  const at::Tensor base = at::pow(stretch, dim / (dim - 2.0)) * rope.theta;
  return at::reciprocal(at::pow(base, exponents(rope)));
}

// Channels that turn often within the original length stay, those that turn less than once are slowed by `factor`, a ramp lies
// between (YaRN, arXiv 2309.00071, section 3.2).
at::Tensor yarn_frequencies(const RopeConfig& rope) {
  const auto dim = static_cast<double>(rope.dim);
  const auto channel_of = [&](double turns) {
    const auto length = static_cast<double>(rope.original_max_position_embeddings);
    return dim * std::log(length / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
  };
  double low = channel_of(rope.beta_fast);
  double high = channel_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;

  const at::Tensor powers = at::pow(rope.theta, exponents(rope));
  const at::Tensor kept = at::reciprocal(powers);
  const at::Tensor slowed = at::reciprocal(rope.factor * powers);
  const at::Tensor ramp = ((at::arange(rope.dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor keep = 1.0 - ramp;
  return slowed * (1.0 - keep) + kept * keep;
}

at::Tensor longrope_frequencies(const RopeConfig& rope, int64_t length) {
  const std::vector<double>& factors = length > rope.original_max_position_embeddings ? rope.long_factor : rope.short_factor;
  return at::reciprocal(at::tensor(factors, at::kFloat) * at::pow(rope.theta, exponents(rope)));
}

// Long waves are slowed by `factor`, short ones kept, those between interpolated (Llama 3.1).
at::Tensor llama3_frequencies(const RopeConfig& rope) {
  const at::Tensor plain = plain_frequencies(rope);
  const auto context = static_cast<double>(rope.original_max_position_embeddings);
  const at::Tensor wavelength = at::reciprocal(plain) * (2.0 * std::numbers::pi);
  const at::Tensor too_long = wavelength > context / rope.low_freq_factor;
  const at::Tensor short_enough = wavelength < context / rope.high_freq_factor;
  const at::Tensor scaled = at::where(too_long, plain / rope.factor, plain);
  const at::Tensor smooth =
      (at::reciprocal(wavelength) * context - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor smoothed = (1.0 - smooth) * scaled / rope.factor + smooth * scaled;
  return at::where(short_enough.logical_or(too_long), scaled, smoothed);
}

}  // namespace

at::Tensor inverse_frequencies(const RopeConfig& rope, int64_t length) {
  switch (rope.kind) {
    case RopeKind::kDefault: return plain_frequencies(rope);
    case RopeKind::kLinear: return plain_frequencies(rope) / rope.factor;
    case RopeKind::kDynamic: return dynamic_frequencies(rope, length);
    case RopeKind::kYarn: return yarn_frequencies(rope);
    case RopeKind::kLongRope: return longrope_frequencies(rope, length);
    case RopeKind::kLlama3: return llama3_frequencies(rope);
  }
  fail(ErrorKind::kInternal, "unknown RopeKind {}", static_cast<int>(rope.kind));
}

namespace {

// float32 [dim / 2], or [batch, 1, dim / 2] where rows may differ.
at::Tensor row_frequencies(const RopeConfig& rope, const at::Tensor& position_ids) {
  if (angles_change_after(rope) == 0 || position_ids.numel() == 0) return inverse_frequencies(rope, 0);
  const at::Tensor lengths = (position_ids.amax(1) + 1).cpu();
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < lengths.size(0); ++row) rows.push_back(inverse_frequencies(rope, lengths[row].item<int64_t>()));
  return at::stack(rows).unsqueeze(1);
}

}  // namespace

std::string_view to_string(RopeKind kind) {
  for (const Name& name : kNames) {
    if (name.kind == kind) return name.text;
  }
  return "unknown";
}

double yarn_magnitude(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

RopeConfig parse_rope(const ConfigReader& config, const RopeDefaults& defaults, int64_t max_position_embeddings) {
  const Json* scaling = config.find("rope_scaling");
  const std::string_view key = scaling != nullptr && !scaling->empty() ? "rope_scaling" : "rope_parameters";
  const Json* found = config.find(key);
  const Json object = found == nullptr ? Json::object() : *found;
  const ConfigReader parameters(object, fmt::format("{}: {}", config.where(), key));
  for (const std::string_view layer_type : {"full_attention", "sliding_attention"}) {
    if (parameters.has(layer_type)) {
      fail(ErrorKind::kUnsupported, "{}: rotary embeddings that differ by layer type ('{}') are not supported for this model",
           parameters.where(), layer_type);
    }
  }
  const std::optional<int64_t> outside = read_original(config);
  return parse(parameters, config, defaults, max_position_embeddings, outside ? outside : read_original(parameters));
}

RopeConfig parse_rope_object(const ConfigReader& parameters, const ConfigReader& config, const RopeDefaults& defaults,
                             int64_t max_position_embeddings) {
  const std::optional<int64_t> inside = read_original(parameters);
  return parse(parameters, config, defaults, max_position_embeddings, inside ? inside : read_original(config));
}

int64_t angles_change_after(const RopeConfig& rope) {
  switch (rope.kind) {
    case RopeKind::kDynamic: return rope.max_position_embeddings;
    case RopeKind::kLongRope: return rope.original_max_position_embeddings;
    default: return 0;
  }
}

namespace {

// One head of one token: the same operations in the same order as the operators below, in one pass over memory where they take six.
SALIENT_CLONES void rotate_halves(float* to, const float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) to[i] = x[i] * cos[i] + -x[half + i] * sin[i];
  for (int64_t i = 0; i < half; ++i) to[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
}

bool can_rotate_heads(const at::Tensor& x, const RotaryTable& table, RopePairs pairs) {
  return pairs == RopePairs::kHalves && x.dim() == 4 && x.is_cpu() && x.scalar_type() == at::kFloat && x.stride(3) == 1 &&
         table.cos.dim() == 4 && table.cos.scalar_type() == at::kFloat && table.cos.is_contiguous() && table.sin.is_contiguous() &&
         table.cos.size(1) == 1 && table.cos.size(2) == x.size(2) && (table.cos.size(0) == 1 || table.cos.size(0) == x.size(0));
}

// x: float32 [batch, heads, tokens, head_dim] -> the same, contiguous.
at::Tensor rotate_heads(const at::Tensor& x, const RotaryTable& table) {
  const int64_t heads = x.size(1);
  const int64_t tokens = x.size(2);
  const int64_t width = x.size(3);
  const int64_t dim = table.cos.size(3);
  at::Tensor result = at::empty({x.size(0), heads, tokens, width}, x.options());
  const float* from = x.const_data_ptr<float>();
  const float* cos = table.cos.const_data_ptr<float>();
  const float* sin = table.sin.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  const int64_t table_stride = table.cos.size(0) == 1 ? 0 : tokens * dim;
  at::parallel_for(0, x.size(0) * heads, std::max<int64_t>(1, kParallelElements / std::max<int64_t>(1, tokens * width)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row) {
                       const int64_t batch = row / heads;
                       for (int64_t token = 0; token < tokens; ++token) {
                         const float* values = from + batch * x.stride(0) + (row % heads) * x.stride(1) + token * x.stride(2);
                         const int64_t angle = batch * table_stride + token * dim;
                         rotate_head(values, cos + angle, sin + angle, dim, width, to + (row * tokens + token) * width);
                       }
                     }
                   });
  return result;
}

}  // namespace

RotaryTable make_rotary_table(const RopeConfig& rope, const at::Tensor& position_ids, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor frequencies = row_frequencies(rope, position_ids).to(position_ids.device());
  const at::Tensor angles = position_ids.to(at::kFloat).unsqueeze(-1) * frequencies;
  const at::Tensor twice =
      rope.pairs == RopePairs::kHalves ? at::cat({angles, angles}, -1) : angles.repeat_interleave(2, /*dim=*/-1);
  const at::Tensor all = twice.unsqueeze(1);
  return {(all.cos() * rope.attention_factor).to(dtype), (all.sin() * rope.attention_factor).to(dtype)};
}

void rotate_head(const float* x, const float* cos, const float* sin, int64_t dim, int64_t width, float* to) {
  rotate_halves(to, x, cos, sin, dim / 2);
  std::copy(x + dim, x + width, to + dim);
}

at::Tensor rotate(const at::Tensor& x, const RotaryTable& table, RopePairs pairs) {
  const at::NoGradGuard no_grad;
  if (can_rotate_heads(x, table, pairs)) return rotate_heads(x, table);
  const int64_t dim = table.cos.size(-1);
  const int64_t rest = x.size(-1) - dim;
  const at::Tensor part = rest == 0 ? x : x.narrow(-1, 0, dim);
  at::Tensor quarter_turn;  // of each pair: (a, b) -> (-b, a)
  if (pairs == RopePairs::kHalves) {
    quarter_turn = at::cat({-part.narrow(-1, dim / 2, dim / 2), part.narrow(-1, 0, dim / 2)}, -1);
  } else {
    const at::Tensor couples = part.unflatten(-1, {dim / 2, 2});
    quarter_turn = at::stack({-couples.select(-1, 1), couples.select(-1, 0)}, -1).flatten(-2);
  }
  const at::Tensor turned = (part * table.cos + quarter_turn * table.sin).to(x.scalar_type());
  return rest == 0 ? turned : at::cat({turned, x.narrow(-1, dim, rest)}, -1);
}

}  // namespace salient::models
