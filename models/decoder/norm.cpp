#include "models/decoder/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>

#include <optional>

#include "common/error.h"

namespace salient::models {
namespace {

at::Tensor normalize_rms(const at::Tensor& wide, double eps) {
  return wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

// In the type of `y`.
at::Tensor scale_and_shift(const at::Tensor& y, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor scaled = weight.defined() ? weight * y : y;
  return bias.defined() ? scaled + bias : scaled;
}

at::Tensor to_float(const at::Tensor& x) { return x.defined() ? x.to(at::kFloat) : x; }

std::optional<at::Tensor> optional_of(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

}  // namespace

at::Tensor normalize(const Norm& norm, const at::Tensor& x) {
  if (!norm.present) return x;
  const at::NoGradGuard no_grad;
  const at::Tensor wide = x.to(at::kFloat);
  switch (norm.kind) {
    case NormKind::kRms: return scale_and_shift(normalize_rms(wide, norm.eps).to(x.scalar_type()), norm.weight, norm.bias);
    case NormKind::kRmsOnePlus: {
      const at::Tensor weight = norm.weight.defined() ? 1.0 + to_float(norm.weight) : norm.weight;
      return scale_and_shift(normalize_rms(wide, norm.eps), weight, to_float(norm.bias)).to(x.scalar_type());
    }
    case NormKind::kLayer:
    case NormKind::kLayerOnePlus: {
      const double offset = stored_weight_offset(norm.kind);
      const at::Tensor weight = norm.weight.defined() && offset != 0.0 ? to_float(norm.weight) + offset : to_float(norm.weight);
      const at::Tensor bias = to_float(norm.bias);
      const int64_t features = x.size(-1);
      const bool by_head = weight.defined() && weight.dim() > 1;
      if (by_head) return scale_and_shift(at::layer_norm(wide, features, {}, {}, norm.eps), weight, bias).to(x.scalar_type());
      return at::layer_norm(wide, features, optional_of(weight), optional_of(bias), norm.eps).to(x.scalar_type());
    }
  }
  fail(ErrorKind::kInternal, "unknown NormKind {}", static_cast<int>(norm.kind));
}

}  // namespace salient::models
