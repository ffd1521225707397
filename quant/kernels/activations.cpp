#include "quant/kernels/activations.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "common/error.h"
#include "quant/clones.h"
#include "quant/kernels/interleaved_weight.h"

namespace salient::quant {
namespace {

constexpr float kHalfRange = 127.5F;     // (127 - -128) / 2
constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest whole number, ties to even, in the low bits
constexpr int64_t kGrainElements = 1 << 13;

// The largest magnitude's bits: ordered as the numbers are, NaN above all.
SALIENT_CLONES uint32_t largest_magnitude(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffU);
  return largest;
}

// Returns the sum.
SALIENT_CLONES int32_t quantize_group(const float* x, int64_t count, float scale, int8_t* codes) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t rounded = std::bit_cast<int32_t>(x[i] / scale + kRounder) - std::bit_cast<int32_t>(kRounder);
    const int32_t code = std::min(127, std::max(-128, rounded));
    sum += code;
    codes[i] = static_cast<int8_t>(code);
  }
  return sum;
}

}  // namespace

float quantize_row(const float* x, int64_t in_features, int64_t group_size, int8_t* codes, int32_t* sums) {
  const int64_t padded = padded_group(group_size);
  float scale = std::bit_cast<float>(largest_magnitude(x, in_features)) / kHalfRange;
  if (scale == 0.0F) scale = std::numeric_limits<float>::epsilon();
  for (int64_t g = 0; g < in_features / group_size; ++g) {
    int8_t* to = codes + g * padded;
    sums[g] = quantize_group(x + g * group_size, group_size, scale, to);
    std::fill(to + group_size, to + padded, int8_t{0});
  }
  return scale;
}

void quantize_rows(const float* x, int64_t rows, int64_t in_features, int64_t group_size, int8_t* codes, float* scales,
                   int32_t* sums) {
  const int64_t groups = in_features / group_size;
  const int64_t width = groups * padded_group(group_size);
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, in_features)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r)
                       scales[r] = quantize_row(x + r * in_features, in_features, group_size, codes + r * width, sums + r * groups);
                   });
}

QuantizedRows quantize_rows(const at::Tensor& x, int64_t group_size) {
  const at::NoGradGuard no_grad;
  if (x.dim() != 2 || x.scalar_type() != at::kFloat || group_size < 1 || x.size(1) % group_size != 0) {
    fail(ErrorKind::kInvalidArgument,
         "activations in 8 bits: [{}] in groups of {}, expected float32 [rows, in_features] and a divisor of in_features",
         fmt::join(x.sizes(), ", "), group_size);
  }
  const int64_t groups = x.size(1) / group_size;
  QuantizedRows rows{x.size(1), group_size, at::empty({x.size(0), groups, padded_group(group_size)}, at::kChar),
                     at::empty({x.size(0)}, at::kFloat), at::empty({x.size(0), groups}, at::kInt)};
  const at::Tensor input = x.contiguous();
  quantize_rows(input.const_data_ptr<float>(), x.size(0), x.size(1), group_size, rows.codes.data_ptr<int8_t>(),
                rows.scales.data_ptr<float>(), rows.sums.data_ptr<int32_t>());
  return rows;
}

RowsView view_of(const QuantizedRows& rows) {
  return {rows.codes.size(0), rows.codes.const_data_ptr<int8_t>(), rows.scales.const_data_ptr<float>(),
          rows.sums.const_data_ptr<int32_t>()};
}

at::Tensor dequantize(const QuantizedRows& rows) {
  const at::Tensor values = rows.codes.narrow(2, 0, rows.group_size).to(at::kFloat) * rows.scales.view({-1, 1, 1});
  return values.reshape({-1, rows.in_features});
}

}  // namespace salient::quant
