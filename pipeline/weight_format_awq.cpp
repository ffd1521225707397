#include "pipeline/weight_format_awq.h"

#include "common/error.h"
#include "quant/awq_gemm.h"
#include "quant/awq_gemv.h"
#include "quant/awq_gemv_fast.h"
#include "quant/awq_layout.h"
#include "quant/awq_marlin.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;
using models::PlannedTensor;
using quant::QuantizationSpec;
using quant::QuantizedWeight;

int64_t group_count(const LinearSpec& linear, const LinearSetting& setting) {
  return linear.in_features / quant::resolve_group_size(setting.group_size, linear.in_features);
}

// GEMV's padding has three group sizes.
void check_padded_groups(const QuantizationSpec& spec) {
  if (spec.group_size == 32 || spec.group_size == 64 || spec.group_size == 128) return;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("group_size: found {}; AutoAWQ's GEMV layouts have groups of 32, 64 and 128", spec.group_size))
      .with_hint("the kernels want 128 (gemv also 64); formats with other groups: awq-gemm, compressed-tensors");
}

// AutoAWQ makes the buffers of this layout with in_features // group_size rows of scales, for -1 as well.
void check_marlin_groups(const QuantizationSpec& spec) {
  if (spec.group_size != -1) return;
  throw Error(ErrorKind::kUnsupported,
              "group_size: found -1; AutoAWQ cannot load awq-marlin with one group for each output channel")
      .with_hint("give a number, best 128; formats with group_size -1: awq-gemm, compressed-tensors");
}

void check_gemm(const LinearSpec& linear, int64_t) {
  if (linear.out_features % 8 == 0) return;
  fail(ErrorKind::kInvalidArgument, "AutoAWQ's GEMM layout needs output channels in multiples of 8, found {}", linear.out_features);
}
void check_gemv(const LinearSpec& linear, int64_t group_size) {
  quant::check_awq_gemv(linear.out_features, linear.in_features, group_size);
}
void check_gemv_fast(const LinearSpec& linear, int64_t group_size) {
  quant::check_awq_gemv_fast(linear.out_features, linear.in_features, group_size);
}
void check_marlin(const LinearSpec& linear, int64_t group_size) {
  quant::check_awq_marlin(linear.out_features, linear.in_features, group_size);
}

std::vector<PlannedTensor> plan_gemm(const LinearSpec& linear, const LinearSetting& setting, at::ScalarType) {
  const int64_t out = linear.out_features;
  const int64_t groups = group_count(linear, setting);
  return {{linear.name + ".qweight", at::kInt, {linear.in_features, out / 8}},
          {linear.name + ".qzeros", at::kInt, {groups, out / 8}},
          {linear.name + ".scales", at::kHalf, {groups, out}}};
}

int64_t zero_words(const LinearSpec& linear, const LinearSetting& setting) {
  return quant::padded_zero_words(linear.in_features, linear.in_features / group_count(linear, setting));
}

std::vector<PlannedTensor> plan_gemv(const LinearSpec& linear, const LinearSetting& setting, at::ScalarType) {
  const int64_t out = linear.out_features;
  const int64_t words = zero_words(linear, setting);
  return {{linear.name + ".qweight", at::kInt, {out, linear.in_features / 8}},
          {linear.name + ".qzeros", at::kInt, {out, words}},
          {linear.name + ".scales", at::kHalf, {out, 8 * words}}};
}

std::vector<PlannedTensor> plan_gemv_fast(const LinearSpec& linear, const LinearSetting& setting, at::ScalarType) {
  const int64_t out = linear.out_features;
  const int64_t places = 8 * zero_words(linear, setting);
  return {{linear.name + ".qweight", at::kShort, {out / 4, linear.in_features}},
          {linear.name + ".qzeros", at::kHalf, {places, out}},
          {linear.name + ".scales", at::kHalf, {places, out}}};
}

std::vector<PlannedTensor> plan_marlin(const LinearSpec& linear, const LinearSetting& setting, at::ScalarType) {
  const int64_t out = linear.out_features;
  return {{linear.name + ".qweight", at::kInt, {linear.in_features / 16, 2 * out}},
          {linear.name + ".scales", at::kHalf, {group_count(linear, setting), out}}};
}

// PackedGemm, PackedGemv, PackedGemvFast
template <auto Pack>
NamedTensors pack_codes(const std::string& module, const QuantizedWeight& weight, const LinearSetting&, at::ScalarType) {
  const auto packed = Pack(weight);
  return {{module + ".qweight", packed.qweight}, {module + ".qzeros", packed.qzeros}, {module + ".scales", packed.scales}};
}

quant::PackedGemvFast pack_half(const QuantizedWeight& weight) { return quant::pack_awq_gemv_fast(weight, at::kHalf); }

NamedTensors pack_marlin(const std::string& module, const QuantizedWeight& weight, const LinearSetting&, at::ScalarType) {
  const quant::PackedMarlin packed = quant::pack_awq_marlin(weight);
  return {{module + ".qweight", packed.qweight}, {module + ".scales", packed.scales}};
}

template <WeightFormat Format>
Json config(const QuantizationSpec& spec, const std::map<std::string, LinearSetting>&,
            const std::vector<std::string>& float_modules, const models::RuntimeBits&) {
  const WeightFormatRow& row = row_of(Format);
  return {{"quant_method", "awq"},         {"zero_point", row.zero_points},
          {"group_size", spec.group_size}, {"bits", spec.weight_bits},
          {"version", row.awq_version},    {"modules_to_not_convert", float_modules.empty() ? Json() : Json(float_modules)}};
}

}  // namespace

const WeightFormatFunctions kAwqGemmFunctions = {nullptr, check_gemm, plan_gemm, pack_codes<quant::pack_awq_gemm>,
                                                 config<WeightFormat::kAwqGemm>};
const WeightFormatFunctions kAwqGemvFunctions = {check_padded_groups, check_gemv, plan_gemv, pack_codes<quant::pack_awq_gemv>,
                                                 config<WeightFormat::kAwqGemv>};
const WeightFormatFunctions kAwqGemvFastFunctions = {check_padded_groups, check_gemv_fast, plan_gemv_fast, pack_codes<pack_half>,
                                                     config<WeightFormat::kAwqGemvFast>};
const WeightFormatFunctions kAwqMarlinFunctions = {check_marlin_groups, check_marlin, plan_marlin, pack_marlin,
                                                   config<WeightFormat::kAwqMarlin>};

}  // namespace salient::pipeline
