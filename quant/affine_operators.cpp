#include "quant/affine_operators.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace salient::quant::operators {
namespace {

// Of each group: float32 [out_features, groups].
struct Parameters {
  at::Tensor scale;
  at::Tensor zero;
};

at::Tensor in_groups(const at::Tensor& weight, int64_t group_size) {
  return weight.reshape({weight.size(0), weight.size(1) / group_size, group_size});
}

GroupRanges ranges_of(const at::Tensor& groups) { return {groups.amin(2).clamp_max(0.0), groups.amax(2).clamp_min(0.0)}; }

at::Tensor stored_scale(const at::Tensor& scale, at::ScalarType dtype) {
  return at::clamp(scale, kLeastStoredScale, kLargestStoredScale).to(dtype).to(at::kFloat);
}

// By a tensor: CUDA multiplies by the reciprocal of a number instead, whose last bit is another.
at::Tensor divided_by(const at::Tensor& x, double divisor) { return x / at::full_like(x, divisor); }

Parameters choose_parameters(const GroupRanges& range, const AffineOptions& options) {
  const double levels = (1 << options.bits) - 1;
  if (!options.zero_point) {
    const double half = 1 << (options.bits - 1);
    const at::Tensor magnitude = at::maximum(-range.low, range.high);
    const at::Tensor scale = stored_scale(divided_by(magnitude, half - 1.0), options.scale_dtype);
    return {at::where(magnitude == 0.0, at::ones_like(scale), scale), at::full_like(scale, half)};
  }
  const at::Tensor width = range.high - range.low;
  const at::Tensor scale = stored_scale(divided_by(width, levels), options.scale_dtype);
  const at::Tensor zero = (-range.low / scale).round().clamp(0.0, levels);
  const at::Tensor flat = width == 0.0;
  return {at::where(flat, at::ones_like(scale), scale), at::where(flat, at::zeros_like(zero), zero)};
}

// The groups' values, those of weight * s where there is one, and how they are rounded.
struct Prepared {
  at::Tensor values;  // float32 [out_features, groups, group_size]
  Parameters parameters;
};

Prepared prepare(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                 const GroupRanges* ranges) {
  Prepared result{in_groups(s.defined() ? weight * s : weight, options.group_size), {}};
  GroupRanges range = ranges != nullptr ? *ranges : ranges_of(result.values);
  if (clip != nullptr) range = {range.low * clip->low, range.high * clip->high};
  result.parameters = choose_parameters(range, options);
  return result;
}

// As floats: clamp(round(w / scale) + zero, 0, levels).
at::Tensor codes_of(const Prepared& prepared, int bits) {
  const at::Tensor inverse = prepared.parameters.scale.reciprocal().unsqueeze(2);
  const at::Tensor scaled = (prepared.values * inverse).clamp_(-1e6, 1e6);
  return scaled.round_().add_(prepared.parameters.zero.unsqueeze(2)).clamp_(0.0, (1 << bits) - 1);
}

}  // namespace

GroupRanges group_ranges(const at::Tensor& weight, int64_t group_size) { return ranges_of(in_groups(weight, group_size)); }

QuantizedWeight quantize_affine(const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip) {
  const Prepared prepared = prepare(weight, {}, options, clip, nullptr);
  const at::Tensor codes = at::nan_to_num(codes_of(prepared, options.bits), 0.0);
  return {codes.to(at::kByte).view(weight.sizes()), prepared.parameters.zero.to(at::kByte), prepared.parameters.scale};
}

at::Tensor dequantize(const QuantizedWeight& quantized) {
  const at::Tensor& codes = quantized.codes;
  const at::Tensor groups = in_groups(codes, codes.size(1) / quantized.scales.size(1)).to(at::kFloat);
  return groups.sub(quantized.zeros.to(at::kFloat).unsqueeze(2)).mul_(quantized.scales.unsqueeze(2)).view(codes.sizes());
}

at::Tensor quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                              const GroupRanges* ranges) {
  const Prepared prepared = prepare(weight, s, options, clip, ranges);
  const at::Tensor error = codes_of(prepared, options.bits)
                               .sub_(prepared.parameters.zero.unsqueeze(2))
                               .mul_(prepared.parameters.scale.unsqueeze(2))
                               .sub_(prepared.values);
  if (s.defined()) error.div_(s.view({-1, options.group_size}));
  return error;
}

}  // namespace salient::quant::operators
