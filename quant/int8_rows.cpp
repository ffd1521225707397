#include "quant/int8_rows.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "quant/clones.h"

namespace salient::quant {
namespace {

constexpr float kLowest = -128.0f;
constexpr float kHighest = 127.0f;
constexpr float kScaleOfZeros =
    std::numeric_limits<float>::epsilon();      // compressed-tensors' choice; the codes are 0 whatever it is
constexpr int64_t kParallelElements = 1 << 15;  // that are worth a thread

// As unsigned integers, magnitudes keep their order and NaN is above all of them. An integer maximum is also one that the compiler
// may compute in any order.
SALIENT_CLONES float largest_magnitude(const float* x, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return std::bit_cast<float>(largest);
}

SALIENT_CLONES void round_row(const float* x, int64_t n, float scale, int8_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const float steps = x[i] / scale;
    const float above = steps > kLowest ? steps : kLowest;
    codes[i] = static_cast<int8_t>(std::nearbyint(above < kHighest ? above : kHighest));
  }
}

// The sizes without the last.
std::vector<int64_t> row_shape(const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.pop_back();
  return shape;
}

Int8Rows on_cpu(const at::Tensor& x, float half_range, const at::Tensor& given) {
  const at::Tensor source = x.contiguous();
  const int64_t width = x.size(-1);
  const int64_t rows = width == 0 ? 0 : x.numel() / width;
  const Int8Rows result = {at::empty(x.sizes(), at::kChar),
                           given.defined() ? given.contiguous() : at::empty(row_shape(x), at::kFloat)};
  const float* from = source.const_data_ptr<float>();
  auto* codes = result.codes.mutable_data_ptr<int8_t>();
  const float* stored = given.defined() ? result.scales.const_data_ptr<float>() : nullptr;
  float* own = given.defined() ? nullptr : result.scales.mutable_data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, kParallelElements / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const std::optional<float> fixed = stored == nullptr ? std::nullopt : std::optional(stored[row]);
      const float scale = to_int8_row(from + row * width, width, half_range, fixed, codes + row * width);
      if (own != nullptr) own[row] = scale;
    }
  });
  return result;
}

Int8Rows with_operators(const at::Tensor& x, float half_range, const at::Tensor& given) {
  const at::Tensor wide = x.to(at::kFloat);
  at::Tensor scales = given;
  if (!given.defined()) {
    scales = wide.abs().amax(-1) / half_range;
    scales = at::where(scales == 0.0, kScaleOfZeros, scales);
  }
  const at::Tensor steps = (wide / scales.unsqueeze(-1)).nan_to_num(0.0);
  return {steps.clamp(kLowest, kHighest).round().to(at::kChar), scales};
}

}  // namespace

float to_int8_row(const float* x, int64_t n, float half_range, std::optional<float> stored, int8_t* codes) {
  float scale = stored ? *stored : largest_magnitude(x, n) / half_range;
  if (!stored && scale == 0.0f) scale = kScaleOfZeros;
  if (std::isfinite(scale)) {
    round_row(x, n, scale, codes);
  } else {
    std::fill_n(codes, n, int8_t{0});
  }
  return scale;
}

Int8Rows to_int8_rows(const at::Tensor& x, float half_range, const at::Tensor& scale) {
  const at::NoGradGuard no_grad;
  const at::Tensor given = scale.defined() ? scale.expand(row_shape(x)) : at::Tensor();
  Int8Rows rows = x.is_cpu() && x.scalar_type() == at::kFloat ? on_cpu(x, half_range, given) : with_operators(x, half_range, given);
  if (given.defined()) rows.scales = given;
  return rows;
}

at::Tensor from_int8_rows(const Int8Rows& rows, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  return rows.codes.to(at::kFloat).mul_(rows.scales.unsqueeze(-1)).to(dtype);
}

at::Tensor round_to_int8_rows(const at::Tensor& x) {
  return from_int8_rows(to_int8_rows(x, kCompressedTensorsHalfRange), x.scalar_type());
}

}  // namespace salient::quant
