#include "models/decoder/float_product.h"

#include <ATen/ops/linear.h>

#include <vector>

#include "quant/kernels/float_product.h"

namespace salient::models {

at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool plain = x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && x.size(-1) > 0;
  if (!plain) return at::linear(x, weight, bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor result = quant::float_product(x.reshape({-1, x.size(-1)}), weight).view(shape);
  return bias.defined() ? result.add_(bias) : result;
}

}  // namespace salient::models
