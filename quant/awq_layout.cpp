#include "quant/awq_layout.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int64_t kKernelStep = 1024;  // input channels
constexpr int kHighest = 15;

void check_range(const at::Tensor& values, std::string_view layout, std::string_view what) {
  const at::Tensor source = values.contiguous();
  const auto* data = source.const_data_ptr<uint8_t>();
  uint8_t highest = 0;
  for (int64_t i = 0; i < source.numel(); ++i) highest = std::max(highest, data[i]);
  if (highest > kHighest) {
    fail(ErrorKind::kInvalidArgument, "{}: {} go up to {}; the layout stores 4 bits, 0 to {}", layout, what, highest, kHighest);
  }
}

}  // namespace

void check_four_bits(const QuantizedWeight& weight, std::string_view layout) {
  const at::Tensor& codes = weight.codes;
  const at::Tensor& zeros = weight.zeros;
  const bool fits = codes.dim() == 2 && zeros.dim() == 2 && codes.scalar_type() == at::kByte && zeros.scalar_type() == at::kByte &&
                    codes.numel() > 0 && zeros.size(0) == codes.size(0) && zeros.size(1) > 0 &&
                    codes.size(1) % zeros.size(1) == 0 && weight.scales.sizes() == zeros.sizes();
  if (!fits) {
    fail(
        ErrorKind::kInvalidArgument,
        "{}: codes {}, zero points {} and scales {} do not fit each other; expected uint8 [out, in], uint8 [out, groups] and [out, "
        "groups], where groups divides in",
        layout, c10::str(codes.sizes()), c10::str(zeros.sizes()), c10::str(weight.scales.sizes()));
  }
  check_range(codes, layout, "codes");
  check_range(zeros, layout, "zero points");
}

at::Tensor to_stored_scales(const at::Tensor& scales, at::ScalarType dtype, std::string_view layout) {
  if (dtype != at::kHalf && dtype != at::kBFloat16) {
    fail(ErrorKind::kInvalidArgument, "{}: scales of type {}, expected float16 or bfloat16", layout, c10::toString(dtype));
  }
  const at::Tensor stored = scales.to(dtype).contiguous();
  const at::Tensor rounded = stored.to(at::kFloat);
  const auto* data = rounded.const_data_ptr<float>();
  for (int64_t i = 0; i < rounded.numel(); ++i) {
    if (!std::isfinite(data[i])) {
      fail(ErrorKind::kInvalidArgument, "{}: the scale of output channel {}, group {} is not finite in {}", layout,
           i / scales.size(1), i % scales.size(1), c10::toString(dtype));
    }
  }
  return stored;
}

int64_t padded_zero_words(int64_t in_features, int64_t group_size) {
  if (group_size != 32 && group_size != 64 && group_size != 128) {
    fail(ErrorKind::kInvalidArgument, "AutoAWQ's GEMV layouts have groups of 32, 64 or 128 input channels, not {}", group_size);
  }
  return (in_features + kKernelStep - 1) / kKernelStep * (128 / group_size);
}

}  // namespace salient::quant
