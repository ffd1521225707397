#include "models/decoder/mlp.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/error.h"
#include "quant/clones.h"
#include "quant/exponential.h"
#include "quant/fixed_parts.h"

namespace salient::models {
namespace {

constexpr int64_t kParallelElements = 16384;  // that are worth a thread

struct ActivationRow {
  std::string_view name;
  at::Tensor (*apply)(const at::Tensor& x);
  int homogeneity;
};

at::Tensor exact_gelu(const at::Tensor& x) { return at::gelu(x, "none"); }
at::Tensor tanh_gelu(const at::Tensor& x) { return at::gelu(x, "tanh"); }
at::Tensor quick_gelu(const at::Tensor& x) { return x * at::sigmoid(1.702 * x); }
at::Tensor squared_relu(const at::Tensor& x) { return at::relu(x).square(); }
at::Tensor plain_relu(const at::Tensor& x) { return at::relu(x); }
at::Tensor plain_silu(const at::Tensor& x) { return at::silu(x); }

constexpr ActivationRow kActivations[] = {
    {"silu", plain_silu, 0},       {"swish", plain_silu, 0},    {"gelu", exact_gelu, 0},
    {"gelu_new", tanh_gelu, 0},    {"gelu_fast", tanh_gelu, 0}, {"gelu_pytorch_tanh", tanh_gelu, 0},
    {"quick_gelu", quick_gelu, 0}, {"relu", plain_relu, 1},     {"relu2", squared_relu, 2},
};

const ActivationRow* find_activation(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kActivations), std::end(kActivations), [&](const ActivationRow& r) { return r.name == name; });
  return row == std::end(kActivations) ? nullptr : row;
}

at::Tensor apply_xielu(const Xielu& shape, const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor beta = shape.beta.defined() ? shape.beta : at::full({}, 0.5, wide.options());
  const at::Tensor eps = shape.eps.defined() ? shape.eps : at::full({}, -1e-6, wide.options());
  const at::Tensor right = at::softplus(shape.alpha_p) * wide.square();
  const at::Tensor left = (at::expm1(at::minimum(wide, eps)) - wide) * (beta + at::softplus(shape.alpha_n));
  return (at::where(wide > 0, right, left) + beta * wide).to(x.scalar_type());
}

// gpt-oss: the gate is clamped above, the up branch on both sides, and one is added to it.
at::Tensor clamped_swiglu(const at::Tensor& gate, const at::Tensor& up, double limit, double alpha) {
  const at::Tensor bounded = gate.clamp_max(limit);
  return (up.clamp(-limit, limit) + 1.0) * (bounded * quant::elementwise(alpha * bounded, at::sigmoid));
}

// In one pass over memory. gate, up: float32 [..., width]; into the gate where it is not a part of something else.
at::Tensor silu_product_rows(const at::Tensor& gate, const at::Tensor& up) {
  const int64_t width = gate.size(-1);
  const at::Tensor gates = gate.reshape({-1, width});
  const at::Tensor ups = up.reshape({-1, width});
  if (gates.stride(1) != 1 || ups.stride(1) != 1) return silu_product_rows(gate.contiguous(), up.contiguous());
  at::Tensor hidden =
      gate.is_contiguous() && gate.storage().nbytes() == gate.nbytes() ? gate : at::empty(gate.sizes(), gate.options());
  const float* from = gates.const_data_ptr<float>();
  const float* by = ups.const_data_ptr<float>();
  float* to = hidden.mutable_data_ptr<float>();
  at::parallel_for(0, gates.size(0), std::max<int64_t>(1, kParallelElements / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row)
                       silu_product(from + row * gates.stride(0), by + row * ups.stride(0), width, to + row * width);
                   });
  return hidden;
}

// Both are results of products and used up; gate: undefined where there is none. At most two of the largest activations are in
// memory at a time.
at::Tensor combine(const DecoderConfig& config, const MlpWeights& weights, const at::Tensor& gate, const at::Tensor& up) {
  if (weights.xielu.alpha_p.defined()) return apply_xielu(weights.xielu, up);
  if (!gate.defined()) return activate(config.hidden_act, up);
  if (config.moe.swiglu_limit > 0.0) return clamped_swiglu(gate, up, config.moe.swiglu_limit, config.moe.swiglu_alpha);
  if (is_silu(config.hidden_act) && gate.is_cpu() && gate.scalar_type() == at::kFloat) return silu_product_rows(gate, up);
  return activate(config.hidden_act, gate).mul_(up);
}

at::Tensor hidden_of(const DecoderConfig& config, const MlpWeights& weights, const at::Tensor& x) {
  if (has_weight(weights.gate_up)) {
    const at::Tensor both = forward(weights.gate_up, x);
    const int64_t width = both.size(-1) / 2;
    return combine(config, weights, both.narrow(-1, 0, width), both.narrow(-1, width, width));
  }
  const at::Tensor gate = has_weight(weights.gate) ? forward(weights.gate, x) : at::Tensor();
  return combine(config, weights, gate, forward(weights.up, x));
}

}  // namespace

SALIENT_CLONES void silu_product(const float* gate, const float* up, int64_t n, float* to) {
#pragma GCC ivdep  // `to` may be `gate`: the same element, never another
  for (int64_t i = 0; i < n; ++i) to[i] = gate[i] / (1.0F + quant::exponential(-gate[i])) * up[i];
}

bool is_silu(std::string_view hidden_act) { return hidden_act == "silu" || hidden_act == "swish"; }

void check_activation(std::string_view hidden_act, const std::string& where) {
  if (find_activation(hidden_act) != nullptr) return;
  std::string list;
  for (const ActivationRow& row : kActivations) list += fmt::format("{}{}", list.empty() ? "" : ", ", row.name);
  fail(ErrorKind::kUnsupported, "{}: activation '{}' is not supported, only {}", where, hidden_act, list);
}

at::Tensor activate(std::string_view hidden_act, const at::Tensor& x) {
  const ActivationRow* row = find_activation(hidden_act);
  if (row == nullptr) fail(ErrorKind::kInternal, "activation '{}' was not checked", hidden_act);
  return quant::elementwise(x, row->apply);
}

int activation_homogeneity(std::string_view hidden_act) {
  const ActivationRow* row = find_activation(hidden_act);
  return row == nullptr ? 0 : row->homogeneity;
}

at::Tensor mlp_hidden(const DecoderConfig& config, const MlpWeights& weights, const at::Tensor& x) {
  const at::Tensor hidden = hidden_of(config, weights, x);
  return weights.activation_scales.defined() ? hidden / weights.activation_scales : hidden;
}

at::Tensor mlp_forward(const DecoderConfig& config, const MlpWeights& weights, int64_t mlp, const at::Tensor& x,
                       const BlockObserver& observer) {
  const at::Tensor hidden = mlp_hidden(config, weights, x);
  if (observer) observer({InputSlot::kMlpHidden, mlp}, hidden);
  return forward(weights.down, hidden);
}

}  // namespace salient::models
