#include "models/decoder/float_product.h"

#include <ATen/Context.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <string_view>
#include <vector>

#include "quant/fixed_product.h"

namespace salient::models {
namespace {

// Below, the product is bound by reading the weights, and oneDNN would only copy them first.
constexpr int64_t kLeastRows = 16;

using OneDnnLinear = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                std::string_view attribute, c10::List<std::optional<at::Scalar>> scalars,
                                std::optional<std::string_view> algorithm);

// Nothing in a libtorch without oneDNN, or with another signature of the operator, which is not part of its documented interface.
std::optional<c10::TypedOperatorHandle<OneDnnLinear>> find_onednn_linear() {
  if (!at::globalContext().hasMKLDNN()) return std::nullopt;
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found) return std::nullopt;
  try {
    return found->typed<OneDnnLinear>();
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

}  // namespace

at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool plain = x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && x.numel() > 0;
  if (!plain) return at::linear(x, weight, bias);
  if (x.numel() / x.size(-1) >= kLeastRows && weight.is_contiguous() && at::globalContext().userEnabledMkldnn()) {
    static const auto onednn = find_onednn_linear();
    if (onednn) {
      return onednn->call(x.contiguous(), weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, "none",
                          c10::List<std::optional<at::Scalar>>(), std::nullopt);
    }
  }
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor result = quant::product(x.reshape({-1, x.size(-1)}), weight.t()).view(shape);
  return bias.defined() ? result.add_(bias) : result;
}

}  // namespace salient::models
