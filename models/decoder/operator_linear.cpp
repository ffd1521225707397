#include "models/decoder/operator_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_convert_weight_to_int4pack.h>
#include <ATen/ops/_weight_int4pack_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "common/log.h"

namespace salient::models {
namespace {

constexpr int64_t kChannelTile = 8;     // output channels of a tile
constexpr int64_t kInputTile = 16;      // input channels of a tile
constexpr int64_t kMostInnerTiles = 8;  // tiles of input channels that are packed side by side: 8, 4 or 2
constexpr int64_t kMiddleCode = 8;

int64_t inner_tiles(int64_t in_features) {
  int64_t tiles = kMostInnerTiles;
  while (tiles > 1 && in_features % (tiles * kInputTile) != 0) tiles /= 2;
  return tiles;
}

// A product whose numbers bfloat16 and float32 hold exactly: two groups of all codes with different scales and zero points.
bool computes_as_defined(at::Device device) {
  const int64_t group = 64;
  const auto on_device = at::TensorOptions(at::kLong).device(device);
  const at::Tensor codes =
      (at::arange(2 * group, on_device).unsqueeze(0) * 7 + at::arange(16, on_device).unsqueeze(1)).remainder(16);
  const at::Tensor zeros = at::arange(32, on_device).view({16, 2}).remainder(16);
  const at::Tensor scales = (at::arange(32, on_device).view({16, 2}).remainder(3) + 1).to(at::kFloat) * 0.25;
  const OperatorLinear linear = make_operator_linear(codes.to(at::kByte), zeros.to(at::kByte), scales, {}, group);
  const at::Tensor dense =
      ((codes.view({16, 2, group}) - zeros.unsqueeze(2)).to(at::kFloat) * scales.unsqueeze(2)).view({16, 2 * group});
  return (dense_weight(linear) == dense).all().item<bool>();
}

bool has_kernel(at::DeviceType type) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const char* name : {"aten::_convert_weight_to_int4pack", "aten::_weight_int4pack_mm"}) {
    const auto schema = dispatcher.findSchema({name, ""});
    if (!schema || !schema->hasKernelForDispatchKey(at::TensorOptions(type).computeDispatchKey())) return false;
  }
  return true;
}

}  // namespace

bool fits_operator(int64_t in_features, int64_t out_features, int64_t group_size) {
  const bool group = group_size == 32 || group_size == 64 || group_size == 128 || group_size == 256;
  return group && in_features % group_size == 0 && out_features > 0 && out_features % kChannelTile == 0;
}

bool test_int4_operator(at::Device device) {
  if (device.is_cpu() || !has_kernel(device.type())) return false;
  const at::NoGradGuard no_grad;
  try {
    if (computes_as_defined(device)) return true;
    log_warn("int4_operator_refused device={} reason=\"a small product came out differently\"", device.str());
  } catch (const c10::Error& error) {  // of an older device, or a libtorch without it
    log_debug("int4_operator_refused device={} reason=\"{}\"", device.str(), error.what_without_backtrace());
  }
  return false;
}

bool has_int4_operator(at::Device device) {
  static std::mutex mutex;
  static auto* const known = new std::map<std::string, bool>;
  const std::lock_guard lock(mutex);
  const auto [place, is_new] = known->try_emplace(device.str(), false);
  if (is_new) place->second = test_int4_operator(device);
  return place->second;
}

OperatorLinear make_operator_linear(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales,
                                    const at::Tensor& bias, int64_t group_size) {
  const at::NoGradGuard no_grad;
  OperatorLinear linear;
  linear.out_features = codes.size(0);
  linear.in_features = codes.size(1);
  linear.group_size = group_size;
  // Of two neighbours the first is in the high half of the byte.
  const at::Tensor pairs = codes.view({linear.out_features, linear.in_features / 2, 2});
  const at::Tensor bytes = pairs.select(2, 0).__lshift__(4).bitwise_or(pairs.select(2, 1));
  linear.packed = at::_convert_weight_to_int4pack(bytes.contiguous(), inner_tiles(linear.in_features));
  // The zero goes with the scale that the operator multiplies by: of another one, every code of the group would be off alike.
  const at::Tensor rounded = scales.to(at::kBFloat16).to(at::kFloat);
  const at::Tensor of_middle = (kMiddleCode - zeros.to(at::kFloat)) * rounded;
  linear.scales_and_zeros = at::stack({rounded.t(), of_middle.t()}, 2).to(at::kBFloat16).contiguous();
  if (bias.defined()) linear.bias = bias.to(at::kBFloat16);
  return linear;
}

at::Tensor operator_product(const OperatorLinear& linear, const at::Tensor& x, int64_t most_elements) {
  const auto multiply = [&](const at::Tensor& rows) {
    const at::Tensor y = at::_weight_int4pack_mm(rows.contiguous(), linear.packed, linear.group_size, linear.scales_and_zeros);
    return linear.bias.defined() ? y + linear.bias : y;
  };
  const int64_t rows = x.size(0);
  const int64_t slice = std::max<int64_t>(1, most_elements / std::max(linear.in_features, linear.out_features));
  if (rows > 0 && rows <= slice) return multiply(x);
  const at::Tensor y = at::empty({rows, linear.out_features}, x.options());
  for (int64_t begin = 0; begin < rows; begin += slice) {
    const int64_t count = std::min(slice, rows - begin);
    y.narrow(0, begin, count).copy_(multiply(x.narrow(0, begin, count)));
  }
  return y;
}

at::Tensor dense_weight(const OperatorLinear& linear) {
  OperatorLinear without_bias = linear;
  without_bias.bias = at::Tensor();
  const at::Tensor units = at::eye(linear.in_features, linear.scales_and_zeros.options());
  return operator_product(without_bias, units).t().to(at::kFloat).contiguous();
}

}  // namespace salient::models
