#include "pipeline/metal_marlin.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "quant/affine.h"
#include "quant/input_statistics.h"

namespace salient::metal_marlin {
namespace {

constexpr int64_t kCodesPerWord = 8;
constexpr int kCodeOffset = 7;       // nibble = code + 7
constexpr int64_t kRowChunk = 4096;  // activation rows converted at a time
// A factor must lower the error by more than what summing in float32 may be wrong by.
constexpr double kLeastGain = 1e-6;
constexpr double kLargestFactor = 256;

std::string shape_text(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", ")); }

void check_finite(const at::Tensor& tensor, std::string_view what) {
  const at::Tensor bad = at::isfinite(tensor).logical_not().reshape({-1, tensor.size(-1)}).any(0);
  if (!bad.any().item<bool>()) return;
  const int64_t first = bad.nonzero()[0].item<int64_t>();
  fail(ErrorKind::kCorruption, "{} hold NaN or Inf in {} of {} columns, the first is {}", what, bad.sum().item<int64_t>(),
       bad.numel(), first);
}

void check_matrix(const at::Tensor& weights) {
  if (weights.dim() != 2 || weights.numel() == 0 || !at::isFloatingType(weights.scalar_type())) {
    fail(ErrorKind::kInvalidArgument, "weights are {} {}, expected floats [in_features, out_features]",
         c10::toString(weights.scalar_type()), shape_text(weights));
  }
  check_finite(weights, "the weights");
}

void check_ratio(double salient_ratio) {
  if (!(salient_ratio >= 0 && salient_ratio <= 1))
    fail(ErrorKind::kInvalidArgument, "salient_ratio is {}, expected 0 to 1 (default {})", salient_ratio, kAwqSalientRatio);
}

at::Tensor pad_columns(const at::Tensor& tensor, int64_t columns) {
  return tensor.size(-1) == columns ? tensor : at::constant_pad_nd(tensor, {0, columns - tensor.size(-1)});
}

// The input's Gram matrix over `padded` channels, and its rows.
quant::InputStatistics gather(const at::Tensor& activations, int64_t padded) {
  quant::InputStatistics statistics = quant::make_input_statistics(padded, at::kCPU);
  if (activations.dim() == 1) {
    const at::Tensor values = pad_columns(activations.to(at::kFloat), padded);
    statistics.gram = at::diag(values.square());
    statistics.abs_sum = values.abs().to(at::kDouble);
    statistics.rows = 1;
    return statistics;
  }
  const at::Tensor rows = activations.reshape({-1, activations.size(-1)});
  for (int64_t begin = 0; begin < rows.size(0); begin += kRowChunk) {
    quant::accumulate(statistics, pad_columns(rows.slice(0, begin, begin + kRowChunk).to(at::kFloat), padded));
  }
  quant::finish(statistics);
  return statistics;
}

// The channels from the most important down; equal ones in their order.
std::vector<int64_t> rank_channels(const at::Tensor& importance) {
  const float* values = importance.const_data_ptr<float>();
  std::vector<int64_t> order(static_cast<size_t>(importance.numel()));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  return order;
}

double median_of_positive(const at::Tensor& statistics) {
  const at::Tensor positive = statistics.masked_select(statistics.gt(0));
  return positive.numel() == 0 ? 1.0 : positive.median().item<double>();
}

// AWQ's candidates for one channel, exact in float16; 1 is not among them.
std::vector<float> factor_candidates(double relative, int grid) {
  std::vector<float> factors;
  for (int i = 1; i <= grid; ++i) {
    const double factor = std::clamp(std::pow(relative, static_cast<double>(i) / grid), 1 / kLargestFactor, kLargestFactor);
    const float stored = static_cast<float>(c10::Half(static_cast<float>(factor)));
    if (stored != 1.0f && (factors.empty() || factors.back() != stored)) factors.push_back(stored);
  }
  return factors;
}

// Chooses q_scale channel by channel. Keeps the weight error D and D G, so that a candidate costs one group and not the whole
// matrix.
class ChannelScaler {
 public:
  ChannelScaler(const at::Tensor& weight, const at::Tensor& gram, const quant::AffineOptions& options)
      : weight_(weight), gram_(gram), options_(options), scales_(at::ones({weight.size(1)}, at::kFloat)) {
    error_ = quant::quantization_error(weight_, scales_, options_);
    product_ = at::mm(error_, gram_);
    least_gain_ = kLeastGain * (error_ * product_).sum(at::kDouble).item<double>();
  }

  void scale(int64_t channel, const std::vector<float>& factors) {
    const int64_t begin = channel / options_.group_size * options_.group_size;
    const at::Tensor weight = weight_.narrow(1, begin, options_.group_size).contiguous();
    const at::Tensor gram = gram_.narrow(0, begin, options_.group_size).narrow(1, begin, options_.group_size);
    const at::Tensor product = product_.narrow(1, begin, options_.group_size);
    const at::Tensor error = error_.narrow(1, begin, options_.group_size);
    const at::Tensor scales = scales_.narrow(0, begin, options_.group_size).clone();
    double best = -least_gain_;
    float best_factor = 1.0f;
    at::Tensor best_change;
    for (const float factor : factors) {
      scales[channel - begin] = factor;
      const at::Tensor change = quant::quantization_error(weight, scales, options_) - error;
      // tr((D + C) G (D + C)^T) - tr(D G D^T)
      const double gain = (change * (product * 2.0 + at::mm(change, gram))).sum(at::kDouble).item<double>();
      if (gain < best) {
        best = gain;
        best_factor = factor;
        best_change = change;
      }
    }
    if (!best_change.defined()) return;
    scales_[channel] = best_factor;
    error_.narrow(1, begin, options_.group_size).add_(best_change);
    product_.addmm_(best_change, gram_.narrow(0, begin, options_.group_size));
  }

  const at::Tensor& scales() const { return scales_; }

 private:
  at::Tensor weight_;
  at::Tensor gram_;
  quant::AffineOptions options_;
  at::Tensor scales_;
  at::Tensor error_;
  at::Tensor product_;
  double least_gain_ = 0;
};

// codes: uint8 [out, in], 0 .. 15 as nibbles.
at::Tensor pack_words(const at::Tensor& codes) {
  const int64_t out = codes.size(0);
  const int64_t words = codes.size(1) / kCodesPerWord;
  const at::Tensor packed = at::zeros({words, out}, at::kInt);
  const uint8_t* source = codes.const_data_ptr<uint8_t>();
  auto* target = reinterpret_cast<uint32_t*>(packed.mutable_data_ptr<int32_t>());
  for (int64_t n = 0; n < out; ++n) {
    for (int64_t k = 0; k < words; ++k) {
      uint32_t word = 0;
      for (int64_t i = 0; i < kCodesPerWord; ++i)
        word |= static_cast<uint32_t>(source[n * codes.size(1) + k * kCodesPerWord + i]) << (4 * i);
      target[k * out + n] = word;
    }
  }
  return packed.view(at::kUInt32);
}

// float32 [8 * words, out] of nibble - 7.
at::Tensor unpack_words(const at::Tensor& packed) {
  const at::Tensor words = packed.contiguous();
  const int64_t out = words.size(1);
  const at::Tensor codes = at::empty({words.size(0) * kCodesPerWord, out}, at::kFloat);
  const auto* source = static_cast<const uint32_t*>(words.const_data_ptr());
  float* target = codes.mutable_data_ptr<float>();
  for (int64_t k = 0; k < words.size(0); ++k) {
    for (int64_t i = 0; i < kCodesPerWord; ++i) {
      for (int64_t n = 0; n < out; ++n) {
        target[(k * kCodesPerWord + i) * out + n] =
            static_cast<float>(static_cast<int>((source[k * out + n] >> (4 * i)) & 15u) - kCodeOffset);
      }
    }
  }
  return codes;
}

int64_t padded_width(int64_t in_features, int64_t group_size) { return (in_features + group_size - 1) / group_size * group_size; }

// -1 is one group over all input channels, rounded up to whole words.
int64_t resolve_group(int64_t group_size, int64_t in_features) {
  if (group_size == -1) return padded_width(in_features, kCodesPerWord);
  if (group_size <= 0 || group_size % kCodesPerWord != 0) {
    fail(ErrorKind::kInvalidArgument, "group_size is {}, expected a multiple of {} (64, 128 and 256 are usual) or -1", group_size,
         kCodesPerWord);
  }
  return group_size;
}

}  // namespace

std::string_view to_string(ActivationMethod method) {
  switch (method) {
    case ActivationMethod::kMean: return "mean";
    case ActivationMethod::kMax: return "max";
    case ActivationMethod::kRms: return "rms";
  }
  return "?";
}

ActivationMethod parse_activation_method(std::string_view name) {
  for (const ActivationMethod method : {ActivationMethod::kMean, ActivationMethod::kMax, ActivationMethod::kRms}) {
    if (name == to_string(method)) return method;
  }
  fail(ErrorKind::kInvalidArgument, "activation method '{}', expected mean, max or rms (default)", name);
}

at::Tensor compute_activation_stats(const at::Tensor& activations, ActivationMethod method) {
  if (activations.dim() < 2 || activations.numel() == 0) {
    fail(ErrorKind::kInvalidArgument, "activations are {}, expected [..., in_features] with at least one row",
         shape_text(activations));
  }
  const at::Tensor rows = activations.reshape({-1, activations.size(-1)});
  at::Tensor total = at::zeros({rows.size(1)}, at::kDouble);
  for (int64_t begin = 0; begin < rows.size(0); begin += kRowChunk) {
    const at::Tensor part = rows.slice(0, begin, begin + kRowChunk).to(at::kDouble);
    check_finite(part, "the activations");
    switch (method) {
      case ActivationMethod::kMean: total.add_(part.abs().sum(0)); break;
      case ActivationMethod::kMax: total = at::maximum(total, std::get<0>(part.abs().max(0))); break;
      case ActivationMethod::kRms: total.add_(part.square().sum(0)); break;
    }
  }
  if (method != ActivationMethod::kMax) total.div_(static_cast<double>(rows.size(0)));
  if (method == ActivationMethod::kRms) total.sqrt_();
  return total.to(at::kFloat);
}

SalientWeights find_salient_weights(const at::Tensor& weights, const at::Tensor& activation_stats, double salient_ratio) {
  check_matrix(weights);
  check_ratio(salient_ratio);
  if (activation_stats.dim() != 1 || activation_stats.size(0) != weights.size(0)) {
    fail(ErrorKind::kInvalidArgument, "activation statistics are {}, expected [{}]: one for each row of the weights {}",
         shape_text(activation_stats), weights.size(0), shape_text(weights));
  }
  check_finite(activation_stats, "the activation statistics");
  const at::Tensor statistics = activation_stats.to(at::kFloat);
  if (statistics.lt(0).any().item<bool>()) fail(ErrorKind::kInvalidArgument, "activation statistics must not be negative");
  const double largest = statistics.max().item<double>();
  SalientWeights found;
  found.per_channel_importance = (largest > 0 ? statistics / largest : statistics.clone()).contiguous();
  const at::Tensor magnitude = weights.to(at::kFloat).abs();
  const at::Tensor combined = magnitude * found.per_channel_importance.unsqueeze(1);
  const auto count = static_cast<int64_t>(static_cast<double>(combined.numel()) * salient_ratio);
  if (count == 0) {
    found.salient_mask = at::zeros(combined.sizes(), at::kBool);
    return found;
  }
  const at::Tensor threshold = std::get<0>(combined.flatten().kthvalue(combined.numel() - count + 1));
  found.salient_mask = combined.ge(threshold).logical_and(combined.gt(0));
  return found;
}

AwqResult awq_quantize(const at::Tensor& weights, const at::Tensor& activations, const AwqQuantizeOptions& options) {
  check_matrix(weights);
  check_ratio(options.salient_ratio);
  if (options.scale_grid < 1 || options.scale_grid > 1000)
    fail(ErrorKind::kInvalidArgument, "scale_grid is {}, expected 1 to 1000", options.scale_grid);
  const int64_t in_features = weights.size(0);
  const int64_t group_size = resolve_group(options.group_size, in_features);
  const int64_t padded = padded_width(in_features, group_size);
  if (activations.dim() == 0 || activations.size(-1) != in_features) {
    fail(ErrorKind::kInvalidArgument, "activations are {}, expected [..., {}] for weights {}", shape_text(activations), in_features,
         shape_text(weights));
  }
  const at::Tensor statistics = activations.dim() == 1 ? activations.to(at::kFloat).contiguous()
                                                       : compute_activation_stats(activations, options.activation_method);
  check_finite(statistics, "the activation statistics");
  const quant::InputStatistics input = gather(activations, padded);
  const quant::AffineOptions affine{4, group_size, options.zero_point};
  const at::Tensor weight = pad_columns(weights.to(at::kFloat).t().contiguous(), padded);

  AwqResult result;
  result.salient_ratio = options.salient_ratio;
  ChannelScaler scaler(weight, input.gram, affine);
  result.rtn_output_error = quant::output_error(quant::quantization_error(weight, scaler.scales(), affine), input.gram, input.rows);
  const double median = median_of_positive(statistics);
  if (options.salient_ratio > 0) {
    result.salient_channels =
        std::clamp<int64_t>(std::llround(options.salient_ratio * static_cast<double>(in_features)), 1, in_features);
  }
  const std::vector<int64_t> order = rank_channels(statistics);
  for (int64_t i = 0; i < result.salient_channels; ++i) {
    const int64_t channel = order[static_cast<size_t>(i)];
    const double statistic = statistics.const_data_ptr<float>()[channel];
    if (statistic > 0) scaler.scale(channel, factor_candidates(statistic / median, options.scale_grid));
  }
  const at::Tensor q_scale = scaler.scales().slice(0, 0, in_features);
  result.scaled_channels = q_scale.ne(1).sum().item<int64_t>();
  result.q_scale = q_scale.to(at::kHalf);

  const quant::QuantizedWeight quantized = quant::quantize_affine(weight * scaler.scales(), affine);
  const at::Tensor zeros = quantized.zeros.to(at::kFloat);
  if (options.zero_point) {
    result.Q = pack_words(quantized.codes.contiguous());
    result.zeros = ((static_cast<double>(kCodeOffset) - zeros) * quantized.scales).t().contiguous().to(at::kHalf);
  } else {
    // Symmetric codes lie in 1 .. 15 around 8: one less than they are is code + 7.
    result.Q = pack_words(at::clamp(quantized.codes.to(at::kInt) - 1, 0, 15).to(at::kByte).contiguous());
    result.zeros = at::zeros({padded / group_size, weight.size(0)}, at::kHalf);
  }
  result.scales = quantized.scales.t().contiguous().to(at::kHalf);

  const AwqMeta meta{in_features, weights.size(1), group_size, std::string(kAwqQuantType)};
  const at::Tensor change =
      awq_dequantize(result.Q, result.scales, result.zeros, result.q_scale, meta, at::kFloat) - weights.to(at::kFloat);
  result.quantization_error = change.square().sum(at::kDouble).item<double>();
  result.output_error = quant::output_error(pad_columns(change.t().contiguous(), padded), input.gram, input.rows);
  return result;
}

at::Tensor awq_dequantize(const at::Tensor& packed, const at::Tensor& scales, const at::Tensor& zeros, const at::Tensor& q_scale,
                          const AwqMeta& meta, at::ScalarType weights_dtype, bool q_scale_of_outputs) {
  if (meta.quant_type != kAwqQuantType)
    fail(ErrorKind::kUnsupported, "quant_type is '{}', expected '{}'", meta.quant_type, kAwqQuantType);
  const auto wrong = [](std::string_view what, const at::Tensor& found, const std::string& expected) {
    fail(ErrorKind::kInvalidArgument, "{} is {} {}, expected {}", what, c10::toString(found.scalar_type()), shape_text(found),
         expected);
  };
  if (meta.in_features <= 0 || meta.out_features <= 0)
    fail(ErrorKind::kInvalidArgument, "in_features {} and out_features {} must be above 0", meta.in_features, meta.out_features);
  const int64_t group_size = resolve_group(meta.group_size, meta.in_features);
  const int64_t padded = padded_width(meta.in_features, group_size);
  const std::vector<int64_t> grid{padded / group_size, meta.out_features};
  if ((packed.scalar_type() != at::kUInt32 && packed.scalar_type() != at::kInt) ||
      packed.sizes() != at::IntArrayRef({padded / kCodesPerWord, meta.out_features})) {
    wrong("Q", packed, fmt::format("uint32 [{}, {}]", padded / kCodesPerWord, meta.out_features));
  }
  const std::string expected_grid = fmt::format("floats [{}, {}]", grid[0], grid[1]);
  if (!at::isFloatingType(scales.scalar_type()) || scales.sizes() != at::IntArrayRef(grid)) wrong("scales", scales, expected_grid);
  if (!at::isFloatingType(zeros.scalar_type()) || zeros.sizes() != at::IntArrayRef(grid)) wrong("zeros", zeros, expected_grid);
  const bool of_inputs = q_scale.dim() == 1 && q_scale.size(0) == meta.in_features && !q_scale_of_outputs;
  const bool of_outputs = q_scale.dim() == 1 && q_scale.size(0) == meta.out_features;
  if (!at::isFloatingType(q_scale.scalar_type()) || (!of_inputs && !of_outputs)) {
    wrong("q_scale", q_scale,
          fmt::format("floats [{}] (input channels), or [{}] from Metal Marlin", meta.in_features, meta.out_features));
  }
  const auto expand = [&](const at::Tensor& values) { return values.to(at::kFloat).repeat_interleave(group_size, 0); };
  at::Tensor weight = unpack_words(packed).mul_(expand(scales)).add_(expand(zeros)).slice(0, 0, meta.in_features);
  weight = weight / q_scale.to(at::kFloat).unsqueeze(of_inputs ? 1 : 0);
  return weight.to(weights_dtype);
}

}  // namespace salient::metal_marlin
