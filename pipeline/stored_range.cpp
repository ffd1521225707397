#include "pipeline/stored_range.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>
#include <set>

#include "common/error.h"
#include "pipeline/quantize_plan.h"

namespace salient::pipeline {
namespace {

using models::Checkpoint;
using models::DecoderConfig;
using models::LinearSpec;
using models::NormSlot;

// Larger tensors outside of the blocks (embedding, lm_head) are stored before the first block, and refused there.
constexpr size_t kVector = 1;

void check_tensor(const Checkpoint& checkpoint, const DecoderConfig& config, const AwqOptions& options, const std::string& source,
                  at::ScalarType dtype) {
  const models::TensorInfo& info = checkpoint.info(source);
  if (dtype != at::kHalf || info.dtype == at::kHalf)
    return;  // no other dtype that models come in has a smaller range than its source
  const at::Tensor tensor = checkpoint.load(source, info.shape, at::kFloat);
  if (fits(tensor, dtype)) return;
  const auto flat = tensor.flatten();
  const int64_t at = at::nonzero(at::isfinite(flat.to(dtype)).logical_not()).flatten()[0].item<int64_t>();
  const bool bfloat16 = config.dtype == at::kBFloat16 && !row_of(options.format).awq_version.empty();
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format("{}: {}: element {} is {:.6g}, beyond the 65504 that {} holds, which format {} stores it in",
                  checkpoint.folder().string(), source, at, flat[at].item<double>(), dtype_text(dtype), to_string(options.format)))
      .with_hint(bfloat16 ? "--format compressed-tensors stores this model's floats in bfloat16"
                          : "--format dequantized stores floats in float32, --format smoothed in the source's dtype");
}

// The norms whose weight the linears behind them can take up.
std::set<NormSlot> smooth_norms(const DecoderConfig& config, const models::BlockLayout& layout) {
  std::set<NormSlot> slots;
  for (const models::ScalingGroup& group : models::scaling_groups(config, layout)) {
    if (const auto* norm = std::get_if<NormSlot>(&group.smooth)) slots.insert(*norm);
  }
  return slots;
}

}  // namespace

bool fits(const at::Tensor& tensor, at::ScalarType dtype) {
  return !tensor.defined() || dtype == at::kFloat || tensor.to(dtype).isfinite().all().item<bool>();
}

std::string dtype_text(at::ScalarType dtype) {
  return dtype == at::kHalf       ? "float16"
         : dtype == at::kBFloat16 ? "bfloat16"
         : dtype == at::kFloat    ? "float32"
                                  : c10::toString(dtype);
}

std::string first_overflow(const models::ScalingGroup& group, const std::vector<LinearSpec>& specs, const AwqOptions& options,
                           const StoredDtype& stored, const std::function<const models::FloatLinear&(models::LinearId)>& linear_of,
                           const models::Norm* smooth_norm) {
  const auto dtype_of = [&](const LinearSpec& spec, const char* part) {
    if (!spec.fused || !row_of(options.format).keeps_layout()) return stored(spec.name + part);
    return stored(std::string_view(part) == ".bias" ? spec.fused->bias : spec.fused->tensor);
  };
  const auto overflow = [&](models::LinearId id, bool bias) -> std::string {
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const LinearSpec& candidate) { return candidate.id == id; });
    if (spec == specs.end()) return "";
    const models::FloatLinear& linear = linear_of(id);
    if (!is_quantized(*spec, options) && !fits(linear.weight, dtype_of(*spec, ".weight"))) return spec->name + ".weight";
    if (bias && linear.bias.defined() && !fits(linear.bias, dtype_of(*spec, ".bias"))) return spec->name + ".bias";
    return "";
  };
  if (smooth_norm != nullptr && smooth_norm->bias.defined() && !fits(smooth_norm->bias, stored(group.smooth_name + ".bias")))
    return group.smooth_name + ".bias";
  if (const auto* smooth = std::get_if<models::LinearId>(&group.smooth)) {
    if (const std::string name = overflow(*smooth, /*bias=*/true); !name.empty()) return name;
  }
  for (const models::LinearId id : group.balance) {
    if (const std::string name = overflow(id, /*bias=*/false); !name.empty()) return name;
  }
  return "";
}

void check_stored_range(const Checkpoint& checkpoint, const DecoderConfig& config, const AwqOptions& options,
                        const StoredDtype& stored) {
  if (row_of(options.format).keeps_layout()) return;  // float32, or each tensor's own dtype
  std::set<std::string> checked;
  const auto check = [&](const std::string& source, const std::string& name) {
    if (checkpoint.contains(source) && checked.insert(source).second)
      check_tensor(checkpoint, config, options, source, stored(name));
  };
  const OuterTensors outer = plan_outer(config, stored, &options);
  for (const auto* list : {&outer.before, &outer.after}) {
    for (const models::PlannedTensor& tensor : *list) {
      if (tensor.shape.size() <= kVector) check(tensor.name, tensor.name);
    }
  }
  const auto check_linear = [&](const LinearSpec& spec) {
    const bool fused = spec.fused && checkpoint.contains(spec.fused->tensor);
    if (!is_quantized(spec, options)) check(fused ? spec.fused->tensor : spec.name + ".weight", spec.name + ".weight");
    if (spec.bias) check(fused ? spec.fused->bias : spec.name + ".bias", spec.name + ".bias");
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    const std::set<NormSlot> smooth = smooth_norms(config, layout);
    for (const LinearSpec& spec : layout.linears) check_linear(spec);
    for (const models::NormSpec& spec : layout.norms) {
      for (const std::string& name : spec.names) {
        if (!smooth.contains(spec.slot)) check(name + ".weight", name + ".weight");
        check(name + ".bias", name + ".bias");
      }
    }
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const LinearSpec& spec : models::expert_layout(config, block, expert)) check_linear(spec);
    }
  }
}

}  // namespace salient::pipeline
