#include "models/decoder/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <optional>
#include <tuple>
#include <variant>
#include <vector>

#include "models/decoder/float_product.h"
#include "models/decoder/mlp.h"
#include "quant/fixed_parts.h"

namespace salient::models {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

at::Tensor router_logits(const Linear& router, const at::Tensor& x) {
  const auto* plain = std::get_if<FloatLinear>(&router);
  if (plain == nullptr) return forward(router, x).to(at::kFloat);
  return float_product(x.to(at::kFloat), plain->weight.to(at::kFloat),
                       plain->bias.defined() ? plain->bias.to(at::kFloat) : at::Tensor());
}

// Scores of experts outside the best groups become -inf.
at::Tensor keep_best_groups(const MoeConfig& moe, const at::Tensor& scores) {
  if (moe.group_score == GroupScore::kNone || moe.groups == moe.groups_per_token) return scores;
  const at::Tensor grouped = scores.view({scores.size(0), moe.groups, -1});
  const at::Tensor rank =
      moe.group_score == GroupScore::kMax ? std::get<0>(grouped.max(-1)) : std::get<0>(at::topk(grouped, 2, -1)).sum(-1);
  const at::Tensor best = std::get<1>(at::topk(rank, moe.groups_per_token, -1));
  const at::Tensor kept = at::zeros_like(rank, rank.options().dtype(at::kBool)).scatter_(1, best, true);
  return grouped.masked_fill(kept.logical_not().unsqueeze(-1), kMinusInfinity).view(scores.sizes());
}

Routing scored(const MoeConfig& moe, const at::Tensor& scores, const at::Tensor& correction) {
  Routing routing;
  const at::Tensor choice = keep_best_groups(moe, correction.defined() ? scores + correction : scores);
  routing.experts = std::get<1>(at::topk(choice, moe.experts_per_token, -1));
  routing.weights = scores.gather(1, routing.experts);
  if (moe.normalize) {
    at::Tensor sum = routing.weights.sum(-1, /*keepdim=*/true) + moe.normalize_epsilon;
    if (moe.normalize_minimum > 0.0) sum = sum.clamp_min(moe.normalize_minimum);
    routing.weights = routing.weights / sum;
  }
  return routing;
}

// The best expert, then the best of the others, each with its softmax among those that are left and whose logit is near.
Routing sparse_mixer(const MoeConfig& moe, const at::Tensor& logits) {
  std::vector<at::Tensor> experts;
  std::vector<at::Tensor> shares;
  at::Tensor left = logits;
  for (int64_t i = 0; i < moe.experts_per_token; ++i) {
    const auto [best, expert] = left.max(-1, /*keepdim=*/true);
    const at::Tensor far = (best - logits) / at::maximum(logits.abs(), best) > 2.0 * moe.router_jitter;
    shares.push_back(at::softmax(left.masked_fill(far, kMinusInfinity), -1).gather(1, expert));
    experts.push_back(expert);
    left = left.scatter(1, expert, kMinusInfinity);
  }
  return {at::cat(experts, 1), at::cat(shares, 1)};
}

}  // namespace

Routing route(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const MoeConfig& moe = config.moe;
  const at::Tensor logits = router_logits(weights.at(LinearSlot::kRouter), x);
  const at::Tensor& correction = weights.at(ParameterSlot::kRouterCorrection);
  Routing routing;
  switch (moe.score) {
    case RouterScore::kSoftmax: routing = scored(moe, at::softmax(logits, -1), correction); break;
    case RouterScore::kSigmoid: routing = scored(moe, quant::elementwise(logits, at::sigmoid), correction); break;
    case RouterScore::kSoftmaxOfChosen:
      std::tie(routing.weights, routing.experts) = at::topk(logits, moe.experts_per_token, -1);
      routing.weights = at::softmax(routing.weights, -1);
      break;
    case RouterScore::kSparseMixer: routing = sparse_mixer(moe, logits); break;
  }
  if (moe.scaling_factor != 1.0) routing.weights = routing.weights * moe.scaling_factor;
  return routing;
}

ExpertRows rows_of_expert(const Routing& routing, int64_t expert) {
  const at::NoGradGuard no_grad;
  const at::Tensor places = at::nonzero(routing.experts.flatten() == expert).flatten();
  return {places.floor_divide(routing.experts.size(1)), routing.weights.flatten().index_select(0, places)};
}

void add_expert(const DecoderConfig& config, const MlpWeights& expert, int64_t index, const ExpertRows& expert_rows,
                const at::Tensor& x, at::Tensor& output, const BlockObserver& observer) {
  const at::NoGradGuard no_grad;
  if (expert_rows.rows.numel() == 0) return;
  const auto weighted = [&](const at::Tensor& y) { return (y * expert_rows.weights.unsqueeze(1)).to(y.scalar_type()); };
  at::Tensor input = x.index_select(0, expert_rows.rows);
  if (config.moe.weight_input) input = weighted(input);
  const at::Tensor part = mlp_forward(config, expert, index, input, observer);
  output.index_add_(0, expert_rows.rows, config.moe.weight_input ? part : weighted(part));
}

at::Tensor shared_expert_forward(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x,
                                 const BlockObserver& observer) {
  const at::NoGradGuard no_grad;
  if (config.moe.shared_intermediate_size == 0) return {};
  const at::Tensor output = mlp_forward(config, weights.shared_expert, kSharedExpert, x, observer);
  const Linear& gate = weights.at(LinearSlot::kSharedExpertGate);
  return has_weight(gate) ? output * quant::elementwise(forward(gate, x), at::sigmoid) : output;
}

at::Tensor mixture_forward(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x,
                           const BlockObserver& observer) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const Routing routing = route(config, weights, rows);
  at::Tensor output = at::zeros_like(rows);
  for (size_t expert = 0; expert < weights.experts.size(); ++expert) {
    const auto index = static_cast<int64_t>(expert);
    add_expert(config, weights.experts[expert], index, rows_of_expert(routing, index), rows, output, observer);
  }
  if (const at::Tensor shared = shared_expert_forward(config, weights, rows, observer); shared.defined()) output = output + shared;
  return output.view(x.sizes());
}

}  // namespace salient::models
