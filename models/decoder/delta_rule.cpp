#include "models/decoder/delta_rule.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "quant/fixed_product.h"

namespace salient::models {
namespace {

at::Tensor state_or_zero(const DeltaRuleInput& input, const at::Tensor& state) {
  if (state.defined()) return state;
  return at::zeros({input.key.size(0), input.key.size(1), input.key.size(3), input.value.size(3)}, input.value.options());
}

// [n, n]: true where column < row.
at::Tensor strictly_lower(int64_t n, at::Device device) {
  const at::Tensor index = at::arange(n, at::TensorOptions(at::kLong).device(device));
  return index.unsqueeze(0).lt(index.unsqueeze(1));
}

}  // namespace

// With G_t the sum of g up to t inside the chunk, and S the memory before it, the recurrence unrolls to
//   S_t = exp(G_t) S + sum over j <= t of exp(G_t - G_j) k_j u_j^T
//   u_t + rate_t * sum over j < t of exp(G_t - G_j) (k_t . k_j) u_j = rate_t (v_t - exp(G_t) S^T k_t)
at::Tensor delta_rule_chunks(const DeltaRuleInput& input, at::Tensor& state, int64_t chunk) {
  const int64_t tokens = input.key.size(2);
  const at::Tensor lower = strictly_lower(std::min(chunk, tokens), input.key.device());
  at::Tensor memory = state_or_zero(input, state);
  std::vector<at::Tensor> outputs;
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t n = std::min(chunk, tokens - begin);
    const at::Tensor query = input.query.narrow(2, begin, n);
    const at::Tensor key = input.key.narrow(2, begin, n);
    const at::Tensor rate = input.rate.narrow(2, begin, n).unsqueeze(-1);
    // Differences of sums that may be in the thousands, of which the small ones matter: in float64.
    const at::Tensor total = input.log_decay.narrow(2, begin, n).cumsum(2, at::kDouble);
    const at::Tensor between = (total.unsqueeze(-1) - total.unsqueeze(-2)).to(at::kFloat);
    const at::Tensor before = lower.narrow(0, 0, n).narrow(1, 0, n);
    // Where column > row the difference is positive and may overflow: those pairs are not looked at.
    const at::Tensor decay = at::exp(at::where(before, between, 0.0)).tril();
    const at::Tensor decay_from_start = at::exp(total).to(at::kFloat).unsqueeze(-1);
    const at::Tensor decay_to_end = at::exp(total.narrow(2, n - 1, 1) - total).to(at::kFloat).unsqueeze(-1);

    const at::Tensor system = quant::product(key * rate, key.transpose(-1, -2)) * decay;  // its diagonal is taken for ones
    const at::Tensor wrong = rate * (input.value.narrow(2, begin, n) - decay_from_start * quant::product(key, memory));
    const at::Tensor update = at::linalg_solve_triangular(system, wrong, /*upper=*/false, /*left=*/true, /*unitriangular=*/true);

    outputs.push_back(quant::product(query * decay_from_start, memory) +
                      quant::product(quant::product(query, key.transpose(-1, -2)) * decay, update));
    memory = memory * decay_from_start.narrow(2, n - 1, 1) + quant::product((key * decay_to_end).transpose(-1, -2), update);
  }
  state = memory;
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2);
}

at::Tensor delta_rule_step(const DeltaRuleInput& input, at::Tensor& state) {
  const at::Tensor decayed = state_or_zero(input, state) * at::exp(input.log_decay).unsqueeze(-1);
  const at::Tensor update = input.rate.unsqueeze(-1) * (input.value - quant::product(input.key, decayed));
  state = decayed + input.key.transpose(-1, -2) * update;
  return quant::product(input.query, state);
}

}  // namespace salient::models
