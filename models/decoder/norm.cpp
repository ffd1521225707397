#include "models/decoder/norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "common/error.h"
#include "quant/clones.h"
#include "quant/vector_loops.h"

namespace salient::models {
namespace {

constexpr int64_t kParallelElements = 16384;  // that are worth a thread

at::Tensor normalize_rms(const at::Tensor& wide, double eps) {
  return wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

SALIENT_CLONES void multiply(float* to, const float* x, float factor, const float* weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = weight[i] * (x[i] * factor);
}

// Rows of float32 on the CPU, in one pass over memory where the operators above take five. Undefined where it does not apply.
at::Tensor normalize_rms_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const bool plain = x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() && weight.defined() &&
                     weight.scalar_type() == at::kFloat && weight.is_contiguous() && x.dim() > 0 &&
                     weight.sizes() == x.sizes().slice(x.dim() - 1);
  if (!plain) return {};
  at::Tensor result = at::empty_like(x);
  const int64_t features = x.size(-1);
  const float* from = x.const_data_ptr<float>();
  const float* w = weight.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, x.numel() / std::max<int64_t>(1, features),
                   std::max<int64_t>(1, kParallelElements / std::max<int64_t>(1, features)), [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row)
                       rms_norm_row(from + row * features, w, eps, features, to + row * features);
                   });
  return result;
}

// In the type of `y`.
at::Tensor scale_and_shift(const at::Tensor& y, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor scaled = weight.defined() ? weight * y : y;
  return bias.defined() ? scaled + bias : scaled;
}

at::Tensor to_float(const at::Tensor& x) { return x.defined() ? x.to(at::kFloat) : x; }

std::optional<at::Tensor> optional_of(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

}  // namespace

void rms_norm_row(const float* x, const float* weight, double eps, int64_t n, float* to) {
  const double mean_square = quant::dot(x, x, n) / static_cast<double>(n);
  multiply(to, x, static_cast<float>(1.0 / std::sqrt(mean_square + eps)), weight, n);
}

at::Tensor normalize(const Norm& norm, const at::Tensor& x) {
  if (!norm.present) return x;
  const at::NoGradGuard no_grad;
  if (norm.kind == NormKind::kRms && !norm.bias.defined()) {
    if (at::Tensor rows = normalize_rms_rows(x, norm.weight, norm.eps); rows.defined()) return rows;
  }
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
