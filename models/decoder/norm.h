// The normalizations of decoder blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace salient::models {

enum class NormKind : uint8_t {
  kRms,           // w * x / sqrt(mean(x^2) + eps)         (Zhang and Sennrich, arXiv 1910.07467)
  kRmsOnePlus,    // (1 + w) * x / sqrt(mean(x^2) + eps)   Gemma stores w
  kLayer,         // w * (x - mean) / sqrt(variance + eps) + b
  kLayerOnePlus,  // the same with 1 + w                   Nemotron stores w
};

// What is added to the stored weight: 1 for the kinds that store it without the one.
constexpr double stored_weight_offset(NormKind kind) {
  return kind == NormKind::kRmsOnePlus || kind == NormKind::kLayerOnePlus ? 1.0 : 0.0;
}

// As stored: for the ...OnePlus kinds the weight without the one. A weight of shape [heads, features] is one norm for each head.
struct Norm {
  at::Tensor weight;  // [features] or [heads, features]; undefined = there is no such norm, or one without parameters
  at::Tensor bias;    // the same shape, or undefined
  NormKind kind = NormKind::kRms;
  double eps = 1e-6;
  bool present = false;
};

// Over the last dimension of x: [..., features] or [..., heads, features]. Computed in float32; kRms multiplies by its weight in
// x's dtype, the others in float32, as transformers does. A norm that is not present returns x.
at::Tensor normalize(const Norm& norm, const at::Tensor& x);

// kRms of one row of n features in float32, in this thread: what normalize computes for float32 on the CPU. `to` may be `x`.
void rms_norm_row(const float* x, const float* weight, double eps, int64_t n, float* to);

}  // namespace salient::models
