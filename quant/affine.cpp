#include "quant/affine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"
#include "quant/affine_operators.h"
#include "quant/clones.h"

namespace salient::quant {
namespace {

// Adding and subtracting 1.5 * 2^23 rounds a float of magnitude below 2^22 to the nearest integer, ties to even.
constexpr float kRound = 12582912.0f;

struct GroupRange {
  float low;   // <= 0
  float high;  // >= 0
};

SALIENT_CLONES GroupRange find_range(const float* w, int64_t n) {
  float low = 0.0f;
  float high = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  return {low, high};
}

// codes as floats: clamp(round(w / scale) + zero, 0, levels), and 0 where the weight is NaN
SALIENT_CLONES void round_to_codes(const float* w, int64_t n, float inverse_scale, float zero, float levels, float* codes) {
  for (int64_t i = 0; i < n; ++i) {
    float scaled = w[i] * inverse_scale;
    scaled = scaled > 1e6f ? 1e6f : (scaled < -1e6f ? -1e6f : scaled);  // keeps the rounding trick in its range
    float code = (scaled + kRound) - kRound + zero;
    code = code > 0.0f ? code : 0.0f;
    codes[i] = code > levels ? levels : code;
  }
}

SALIENT_CLONES void to_bytes(const float* codes, int64_t n, uint8_t* bytes) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(codes[i]);
}

SALIENT_CLONES void multiply(const float* a, const float* b, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] * b[i];
}

// What rounding leaves of each weight: the same code, times its scale, less the weight.
SALIENT_CLONES void find_rounding_error(const float* w, int64_t n, float inverse_scale, float scale, float zero, float levels,
                                        float* out) {
  for (int64_t i = 0; i < n; ++i) {
    float scaled = w[i] * inverse_scale;
    scaled = scaled > 1e6f ? 1e6f : (scaled < -1e6f ? -1e6f : scaled);
    float code = (scaled + kRound) - kRound + zero;
    code = code > 0.0f ? code : 0.0f;
    code = code > levels ? levels : code;
    out[i] = (code - zero) * scale - w[i];
  }
}

SALIENT_CLONES void divide_in_place(float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) a[i] /= b[i];
}

// Weights that are worth a thread: a scale candidate is often measured on few rows.
constexpr int64_t kParallelElements = 8192;

struct GroupParameters {
  float scale;
  float zero;
};

GroupParameters choose_parameters(GroupRange range, const AffineOptions& options) {
  const float levels = static_cast<float>((1 << options.bits) - 1);
  if (!options.zero_point) {
    const float half = static_cast<float>(1 << (options.bits - 1));
    const float magnitude = std::max(-range.low, range.high);
    // An all-zero group: any step does, every code is the zero point.
    if (magnitude == 0.0f) return {1.0f, half};
    return {to_stored_scale(magnitude / (half - 1.0f), options.scale_dtype), half};
  }
  const float width = range.high - range.low;
  if (width == 0.0f) return {1.0f, 0.0f};
  const float scale = to_stored_scale(width / levels, options.scale_dtype);
  return {scale, std::clamp(std::nearbyint(-range.low / scale), 0.0f, levels)};
}

void check_shapes(const at::Tensor& weight, const AffineOptions& options) {
  if (weight.dim() != 2 || weight.scalar_type() != at::kFloat || !weight.is_contiguous()) {
    fail(ErrorKind::kInternal, "quantize_affine: expected a contiguous float32 matrix");
  }
  if (options.group_size <= 0 || weight.size(1) % options.group_size != 0) {
    resolve_group_size(options.group_size, weight.size(1));
    fail(ErrorKind::kInternal, "quantize_affine: group size {} is not resolved", options.group_size);
  }
}

// Calls visit(row, group, scaled weights of the group, parameters, scratch of a group's size).
template <typename Visit>
void for_each_group(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                    const GroupRanges* ranges, Visit visit) {
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t group = options.group_size;
  const int64_t groups = columns / group;
  const float* w = weight.const_data_ptr<float>();
  const float* known_low = ranges != nullptr ? ranges->low.const_data_ptr<float>() : nullptr;
  const float* known_high = ranges != nullptr ? ranges->high.const_data_ptr<float>() : nullptr;
  const float* scale_in = s.defined() ? s.const_data_ptr<float>() : nullptr;
  const float* clip_low = clip != nullptr ? clip->low.const_data_ptr<float>() : nullptr;
  const float* clip_high = clip != nullptr ? clip->high.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, rows, std::max<int64_t>(1, kParallelElements / columns), [&](int64_t begin, int64_t end) {
    std::vector<float> scaled(static_cast<size_t>(group));
    std::vector<float> scratch(static_cast<size_t>(group));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < groups; ++g) {
        const float* source = w + row * columns + g * group;
        const float* values = source;
        if (scale_in != nullptr) {
          multiply(source, scale_in + g * group, group, scaled.data());
          values = scaled.data();
        }
        const int64_t at = row * groups + g;
        GroupRange range = known_low != nullptr ? GroupRange{known_low[at], known_high[at]} : find_range(values, group);
        if (clip_low != nullptr) {
          range.low *= clip_low[at];
          range.high *= clip_high[at];
        }
        visit(row, g, values, choose_parameters(range, options), scratch.data());
      }
    }
  });
}

float levels_of(const AffineOptions& options) { return static_cast<float>((1 << options.bits) - 1); }

}  // namespace

float to_stored_scale(float scale, at::ScalarType dtype) {
  const float bounded = std::clamp(scale, kLeastStoredScale, kLargestStoredScale);
  return dtype == at::kBFloat16 ? static_cast<float>(c10::BFloat16(bounded)) : static_cast<float>(c10::Half(bounded));
}

QuantizedWeight quantize_affine(const at::Tensor& weight, const AffineOptions& options, const ClipRange* clip) {
  check_shapes(weight, options);
  if (!weight.is_cpu()) return operators::quantize_affine(weight, options, clip);
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t groups = columns / options.group_size;
  QuantizedWeight result{at::empty({rows, columns}, at::kByte), at::empty({rows, groups}, at::kByte),
                         at::empty({rows, groups}, at::kFloat)};
  auto* codes = result.codes.data_ptr<uint8_t>();
  auto* zeros = result.zeros.data_ptr<uint8_t>();
  auto* scales = result.scales.data_ptr<float>();
  for_each_group(weight, {}, options, clip, nullptr,
                 [&](int64_t row, int64_t g, const float* values, GroupParameters parameters, float* found) {
                   round_to_codes(values, options.group_size, 1.0f / parameters.scale, parameters.zero, levels_of(options), found);
                   to_bytes(found, options.group_size, codes + row * columns + g * options.group_size);
                   zeros[row * groups + g] = static_cast<uint8_t>(parameters.zero);
                   scales[row * groups + g] = parameters.scale;
                 });
  return result;
}

QuantizedWeight to_device(const QuantizedWeight& weight, at::Device device) {
  return {weight.codes.to(device), weight.zeros.to(device), weight.scales.to(device)};
}

ClipRange to_device(const ClipRange& range, at::Device device) {
  if (!range.low.defined()) return range;
  return {range.low.to(device), range.high.to(device)};
}

at::Tensor dequantize(const QuantizedWeight& quantized) {
  if (!quantized.codes.is_cpu()) return operators::dequantize(quantized);
  const int64_t rows = quantized.codes.size(0);
  const int64_t columns = quantized.codes.size(1);
  const int64_t groups = quantized.scales.size(1);
  const int64_t group = columns / groups;
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  const at::Tensor float_zeros = quantized.zeros.to(at::kFloat).contiguous();
  const auto* codes = quantized.codes.const_data_ptr<uint8_t>();
  const auto* zeros = float_zeros.const_data_ptr<float>();
  const auto* scales = quantized.scales.const_data_ptr<float>();
  auto* out = result.data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, kParallelElements / columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = row * columns + g * group;
        const float zero = zeros[row * groups + g];
        const float scale = scales[row * groups + g];
        for (int64_t i = 0; i < group; ++i) out[at + i] = (static_cast<float>(codes[at + i]) - zero) * scale;
      }
    }
  });
  return result;
}

at::Tensor quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip) {
  at::Tensor result = at::empty(weight.sizes(), weight.options());
  write_quantization_error(weight, s, options, clip, result);
  return result;
}

GroupRanges group_ranges(const at::Tensor& weight, int64_t group_size) {
  if (!weight.is_cpu()) return operators::group_ranges(weight, group_size);
  const at::Tensor all = weight.contiguous();
  const int64_t groups = all.numel() / group_size;
  GroupRanges result{at::empty({all.size(0), all.size(1) / group_size}, at::kFloat),
                     at::empty({all.size(0), all.size(1) / group_size}, at::kFloat)};
  const auto* w = all.const_data_ptr<float>();
  auto* low = result.low.data_ptr<float>();
  auto* high = result.high.data_ptr<float>();
  at::parallel_for(0, groups, std::max<int64_t>(1, kParallelElements / group_size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const GroupRange range = find_range(w + i * group_size, group_size);
      low[i] = range.low;
      high[i] = range.high;
    }
  });
  return result;
}

void write_quantization_error(const at::Tensor& weight, const at::Tensor& s, const AffineOptions& options, const ClipRange* clip,
                              const at::Tensor& error, const GroupRanges* ranges) {
  check_shapes(weight, options);
  const bool by_group = error.dim() == 3;
  if (!weight.is_cpu()) {
    const at::Tensor groups = operators::quantization_error(weight, s, options, clip, ranges);
    error.copy_(by_group ? groups.transpose(0, 1) : groups.view(weight.sizes()));
    return;
  }
  const int64_t columns = weight.size(1);
  auto* out = error.data_ptr<float>();
  const int64_t row_stride = by_group ? options.group_size : columns;
  const int64_t group_stride = by_group ? weight.size(0) * options.group_size : options.group_size;
  const float* s_data = s.defined() ? s.const_data_ptr<float>() : nullptr;
  for_each_group(weight, s, options, clip, ranges,
                 [&](int64_t row, int64_t g, const float* values, GroupParameters parameters, float*) {
                   float* at = out + row * row_stride + g * group_stride;
                   find_rounding_error(values, options.group_size, 1.0f / parameters.scale, parameters.scale, parameters.zero,
                                       levels_of(options), at);
                   if (s_data != nullptr) divide_in_place(at, s_data + g * options.group_size, options.group_size);
                 });
}

int64_t resolve_group_size(int64_t group_size, int64_t in_features) {
  if (group_size == -1) return in_features;
  if (group_size > 0 && in_features % group_size == 0) return group_size;
  std::string possible;
  for (const int64_t size : {16, 32, 64, 128, 256}) {
    if (in_features % size == 0) possible += fmt::format("{}{}", possible.empty() ? "" : ", ", size);
  }
  fail(ErrorKind::kInvalidArgument, "group size {} does not divide {} input channels; {}{}-1 (per channel) do", group_size,
       in_features, possible, possible.empty() ? "only " : " and ");
}

}  // namespace salient::quant
