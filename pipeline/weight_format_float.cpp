#include "pipeline/weight_format_float.h"

#include <ATen/TensorOperators.h>
#include <c10/core/ScalarType.h>

#include "common/error.h"

namespace salient::pipeline {
namespace {

std::vector<models::PlannedTensor> plan_float(const models::LinearSpec& linear, const LinearSetting&, at::ScalarType dtype) {
  return {{linear.name + ".weight", dtype, {linear.out_features, linear.in_features}}};
}

NamedTensors pack_float(const std::string& module, const quant::QuantizedWeight& weight, const LinearSetting&,
                        at::ScalarType dtype) {
  const at::Tensor dense = quant::dequantize(weight).to(dtype);
  if (!dense.isfinite().all().item<bool>()) {
    fail(ErrorKind::kUnsupported, "a dequantized value of magnitude {} does not fit {}",
         quant::dequantize(weight).abs().max().item<double>(), c10::toString(dtype));
  }
  return {{module + ".weight", dense}};
}

}  // namespace

const WeightFormatFunctions kDequantizedFunctions = {nullptr, nullptr, plan_float, pack_float, nullptr};
const WeightFormatFunctions kSmoothedFunctions = {nullptr, nullptr, plan_float, nullptr, nullptr};

}  // namespace salient::pipeline
