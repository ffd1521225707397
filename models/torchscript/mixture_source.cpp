#include "models/torchscript/mixture_source.h"

#include "models/torchscript/script_text.h"

namespace salient::models {
namespace {

constexpr std::string_view kMinusInfinity = "float(\"-inf\")";

// From `scores` to `experts` and `weights`.
void add_scored(std::string& text, const BlockParts& parts) {
  const MoeConfig& moe = parts.config.moe;
  add_line(text, "  choice = scores{}", parts.has(ParameterSlot::kRouterCorrection) ? " + self.router_correction" : "");
  if (moe.group_score != GroupScore::kNone && moe.groups != moe.groups_per_token) {
    add_line(text, "  grouped = choice.view([choice.size(0), {}, -1])", moe.groups);
    if (moe.group_score == GroupScore::kMax) {
      add_line(text, "  rank = torch.amax(grouped, [-1])");
    } else {
      add_line(text, "  rank = torch.topk(grouped, 2, -1)[0].sum([-1])");
    }
    add_line(text, "  kept = torch.zeros_like(rank).scatter(1, torch.topk(rank, {}, -1)[1], 1.0)", moe.groups_per_token);
    add_line(text, "  choice = grouped.masked_fill((kept == 0.0).unsqueeze(-1), {}).view(choice.size())", kMinusInfinity);
  }
  add_line(text, "  experts = torch.topk(choice, {}, -1)[1]", moe.experts_per_token);
  add_line(text, "  weights = torch.gather(scores, 1, experts)");
  if (!moe.normalize) return;
  add_line(text, "  total = weights.sum([-1], True) + {}", real_literal(moe.normalize_epsilon));
  if (moe.normalize_minimum > 0.0) add_line(text, "  total = torch.clamp(total, {})", real_literal(moe.normalize_minimum));
  add_line(text, "  weights = weights / total");
}

void add_sparse_mixer(std::string& text, const MoeConfig& moe) {
  add_line(text, "  chosen_experts: List[Tensor] = []");
  add_line(text, "  shares: List[Tensor] = []");
  add_line(text, "  left = logits");
  add_line(text, "  for i in range({}):", moe.experts_per_token);
  add_line(text, "    best, expert = torch.max(left, -1, True)");
  add_line(text, "    far = (best - logits) / torch.maximum(torch.abs(logits), best) > {}", real_literal(2.0 * moe.router_jitter));
  add_line(text, "    shares.append(torch.gather(torch.softmax(left.masked_fill(far, {}), -1), 1, expert))", kMinusInfinity);
  add_line(text, "    chosen_experts.append(expert)");
  add_line(text, "    left = left.scatter(1, expert, {})", kMinusInfinity);
  add_line(text, "  experts = torch.cat(chosen_experts, 1)");
  add_line(text, "  weights = torch.cat(shares, 1)");
}

void add_routing(std::string& text, const BlockParts& parts) {
  const MoeConfig& moe = parts.config.moe;
  add_line(text, "  logits = self.router.forward(rows.to(6))");
  switch (moe.score) {
    case RouterScore::kSoftmax:
      add_line(text, "  scores = torch.softmax(logits, -1)");
      add_scored(text, parts);
      break;
    case RouterScore::kSigmoid:
      add_line(text, "  scores = torch.sigmoid(logits)");
      add_scored(text, parts);
      break;
    case RouterScore::kSoftmaxOfChosen:
      add_line(text, "  weights, experts = torch.topk(logits, {}, -1)", moe.experts_per_token);
      add_line(text, "  weights = torch.softmax(weights, -1)");
      break;
    case RouterScore::kSparseMixer: add_sparse_mixer(text, moe); break;
  }
  if (moe.scaling_factor != 1.0) add_line(text, "  weights = weights * {}", real_literal(moe.scaling_factor));
}

}  // namespace

std::string mixture_source(const BlockParts& parts) {
  const MoeConfig& moe = parts.config.moe;
  std::string text;
  add_line(text, "def mixture(self, x: Tensor) -> Tensor:");
  add_line(text, "  rows = x.reshape([-1, x.size(-1)])");
  add_routing(text, parts);
  add_line(text, "  output = torch.zeros_like(rows)");
  add_line(text, "  flat = experts.reshape([-1])");
  add_line(text, "  shares_of_rows = weights.reshape([-1])");
  add_line(text, "  counts: List[int] = torch.bincount(flat, None, {}).tolist()", moe.num_experts);
  add_line(text, "  for expert_index in range({}):", moe.num_experts);
  add_line(text, "    if counts[expert_index] > 0:");
  add_line(text, "      places = torch.nonzero(flat == expert_index).reshape([-1])");
  add_line(text, "      chosen = torch.floor_divide(places, {})", moe.experts_per_token);
  add_line(text, "      share = shares_of_rows.index_select(0, places).unsqueeze(1)");
  add_line(text, "      part = rows.index_select(0, chosen)");
  if (moe.weight_input) add_line(text, "      part = (part * share).to(x.dtype)");
  add_line(text, "      part = self.experts.forward(part, expert_index)");
  if (!moe.weight_input) add_line(text, "      part = (part * share).to(x.dtype)");
  add_line(text, "      output.index_add_(0, chosen, part)");
  if (moe.shared_intermediate_size > 0) {
    const bool gated = parts.has(LinearSlot::kSharedExpertGate);
    add_line(text, "  output = output + self.shared_expert.forward(rows){}",
             gated ? " * torch.sigmoid(self.shared_expert_gate.forward(rows))" : "");
  }
  add_line(text, "  return output.view(x.size())");
  return text;
}

}  // namespace salient::models
