#include "models/gguf/gguf_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "models/gguf/gguf_graphs.h"
#include "models/io/gguf_header.h"

namespace salient::models {
namespace {

struct LinearName {
  LinearSlot slot;
  std::string_view name;
};
// Those of experts end in "_exps", those of a shared expert in "_shexp".
constexpr LinearName kLinearNames[] = {
    {LinearSlot::kQProj, "attn_q"},      {LinearSlot::kKProj, "attn_k"},
    {LinearSlot::kVProj, "attn_v"},      {LinearSlot::kQkvProj, "attn_qkv"},
    {LinearSlot::kOProj, "attn_output"}, {LinearSlot::kRouter, "ffn_gate_inp"},
    {LinearSlot::kGateProj, "ffn_gate"}, {LinearSlot::kSharedExpertGate, "ffn_gate_inp_shexp"},
    {LinearSlot::kUpProj, "ffn_up"},     {LinearSlot::kGateUpProj, "ffn_up"},  // gate's rows first
    {LinearSlot::kDownProj, "ffn_down"},
};

struct NormName {
  NormSlot slot;
  std::string_view name;  // "" = as the graph's row says
};
constexpr NormName kNormNames[] = {
    {NormSlot::kAttentionInput, "attn_norm"},
    {NormSlot::kQuery, "attn_q_norm"},
    {NormSlot::kKey, "attn_k_norm"},
    {NormSlot::kAttentionOutput, "post_attention_norm"},
    {NormSlot::kMlpInput, ""},
    {NormSlot::kMlpOutput, "post_ffw_norm"},
};

template <typename Row, typename Slot, size_t N>
const Row& row_of(const Row (&rows)[N], Slot slot, std::string_view tensor) {
  const auto* const row = std::find_if(std::begin(rows), std::end(rows), [slot](const Row& r) { return r.slot == slot; });
  if (row == std::end(rows)) fail(ErrorKind::kInternal, "{} has no name in GGUF files", tensor);
  return *row;
}

class Planner {
 public:
  Planner(const GgufGraph& graph, const DecoderConfig& config) : graph_(graph), config_(config) {}

  std::vector<GgufTensorPlan> plan() {
    add({"token_embd.weight", {config_.vocab_size, config_.hidden_size}, true, {std::string(config_.names.embedding)}});
    add_norm("output_norm", hidden_norm(config_, config_.names.final_norm));
    if (!config_.tie_word_embeddings || graph_.output_required) {
      const std::string head =
          config_.tie_word_embeddings ? std::string(config_.names.embedding) : std::string(config_.names.lm_head) + ".weight";
      add({"output.weight", {config_.vocab_size, config_.hidden_size}, true, {head}});
    }
    add_rope_factors();
    for (int64_t block = 0; block < config_.num_hidden_layers; ++block) add_block(block);
    return std::move(tensors_);
  }

 private:
  void add(GgufTensorPlan tensor) {
    if (tensor.name.size() > kMaxGgufNameBytes) fail(ErrorKind::kUnsupported, "'{}' is too long a name for GGUF", tensor.name);
    tensors_.push_back(std::move(tensor));
  }

  void add_norm(const std::string& name, const NormSpec& norm) {
    const GgufTransform transform = stored_weight_offset(norm.kind) != 0.0 ? GgufTransform::kAddOne : GgufTransform::kNone;
    add({name + ".weight", {norm.features}, false, {norm.names.at(0) + ".weight"}, transform});
    if (norm.bias) add({name + ".bias", {norm.features}, false, {norm.names.at(0) + ".bias"}});
  }

  void add_values(std::string name, std::vector<float> values) {
    GgufTensorPlan tensor;
    tensor.name = std::move(name);
    tensor.shape = {static_cast<int64_t>(values.size())};
    tensor.values = std::move(values);
    add(std::move(tensor));
  }

  void add_rope_factors() {
    const RopeConfig& rope = config_.ropes.at(0);
    if (rope.kind == RopeKind::kLlama3) add_values("rope_freqs.weight", llama3_divisors(rope));
    if (rope.kind == RopeKind::kLongRope) {
      add_values("rope_factors_long.weight", {rope.long_factor.begin(), rope.long_factor.end()});
      add_values("rope_factors_short.weight", {rope.short_factor.begin(), rope.short_factor.end()});
    }
  }

  // Long waves are slowed by `factor`, short ones kept, those between interpolated.
  static std::vector<float> llama3_divisors(const RopeConfig& rope) {
    std::vector<float> divisors;
    const auto context = static_cast<double>(rope.original_max_position_embeddings);
    for (int64_t i = 0; i < rope.dim / 2; ++i) {
      const double wavelength =
          2.0 * std::numbers::pi * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(rope.dim));
      double divisor = 1.0;
      if (wavelength > context / rope.low_freq_factor) {
        divisor = rope.factor;
      } else if (wavelength >= context / rope.high_freq_factor) {
        const double smooth = (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        divisor = 1.0 / ((1.0 - smooth) / rope.factor + smooth);
      }
      divisors.push_back(static_cast<float>(divisor));
    }
    return divisors;
  }

  void add_block(int64_t block) {
    const BlockLayout layout = block_layout(config_, block);
    const std::string prefix = fmt::format("blk.{}.", block);
    for (const NormSpec& norm : layout.norms) {
      std::string_view name = row_of(kNormNames, norm.slot, norm.names.at(0)).name;
      if (name.empty()) name = graph_.mlp_norm;
      add_norm(prefix + std::string(name), norm);
    }
    for (const LinearSpec& linear : layout.linears) add_linear(prefix, linear);
    if (layout.experts > 0) add_experts(prefix, block, layout.experts);
  }

  void add_linear(const std::string& prefix, const LinearSpec& linear) {
    const std::string name = fmt::format("{}{}{}", prefix, row_of(kLinearNames, linear.id.slot, linear.name).name,
                                         linear.id.mlp == kSharedExpert ? "_shexp" : "");
    GgufTensorPlan weight{name + ".weight", {linear.out_features, linear.in_features}, linear.quantize, {linear.name + ".weight"}};
    set_rope(weight, linear.id.slot);
    add(std::move(weight));
    if (!linear.bias) return;
    GgufTensorPlan bias{name + ".bias", {linear.out_features}, false, {linear.name + ".bias"}};
    set_rope(bias, linear.id.slot);
    add(std::move(bias));
  }

  void set_rope(GgufTensorPlan& tensor, LinearSlot slot) const {
    if (!graph_.interleaved_rope || (slot != LinearSlot::kQProj && slot != LinearSlot::kKProj)) return;
    tensor.transform = GgufTransform::kRopeRows;
    tensor.heads = slot == LinearSlot::kQProj ? config_.num_attention_heads : config_.num_key_value_heads;
  }

  void add_experts(const std::string& prefix, int64_t block, int64_t experts) {
    std::vector<GgufTensorPlan> stacks;
    for (int64_t expert = 0; expert < experts; ++expert) {
      const std::vector<LinearSpec> linears = expert_layout(config_, block, expert);
      for (size_t i = 0; i < linears.size(); ++i) {
        const LinearSpec& linear = linears[i];
        if (expert == 0) {
          stacks.push_back({fmt::format("{}{}_exps.weight", prefix, row_of(kLinearNames, linear.id.slot, linear.name).name),
                            {experts, linear.out_features, linear.in_features},
                            true,
                            {}});
        }
        stacks[i].sources.push_back(linear.name + ".weight");
      }
    }
    for (GgufTensorPlan& stack : stacks) add(std::move(stack));
  }

  const GgufGraph& graph_;
  const DecoderConfig& config_;
  std::vector<GgufTensorPlan> tensors_;
};

at::Tensor planned_shape(const GgufTensorPlan& plan, const at::Tensor& values) {
  const std::vector<int64_t> shape = plan.stacked() ? std::vector<int64_t>(plan.shape.begin() + 1, plan.shape.end()) : plan.shape;
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  if (values.numel() != count) fail(ErrorKind::kInternal, "{}: {} values where {} are planned", plan.name, values.numel(), count);
  return values.reshape(shape);
}

}  // namespace

GgufPlan plan_gguf_tensors(const DecoderConfig& config) {
  GgufGraphChoice choice = choose_gguf_graph(config);
  return {std::string(choice.graph->architecture), Planner(*choice.graph, config).plan(), std::move(choice.notes)};
}

at::Tensor rope_row_order(int64_t rows, int64_t heads) {
  if (heads < 1 || rows % (2 * heads) != 0) fail(ErrorKind::kInternal, "{} rows are not {} heads of pairs", rows, heads);
  return at::arange(rows, at::kLong).reshape({heads, 2, rows / heads / 2}).transpose(1, 2).reshape({rows});
}

at::Tensor rope_row_order_inverse(int64_t rows, int64_t heads) {
  if (heads < 1 || rows % (2 * heads) != 0) fail(ErrorKind::kInternal, "{} rows are not {} heads of pairs", rows, heads);
  return at::arange(rows, at::kLong).reshape({heads, rows / heads / 2, 2}).transpose(1, 2).reshape({rows});
}

at::Tensor to_gguf(const GgufTensorPlan& plan, const at::Tensor& source) {
  const at::Tensor values = planned_shape(plan, source);
  switch (plan.transform) {
    case GgufTransform::kNone: return values;
    case GgufTransform::kRopeRows: return at::index_select(values, 0, rope_row_order(values.size(0), plan.heads));
    case GgufTransform::kAddOne: return values.to(at::kFloat) + 1.0;
  }
  fail(ErrorKind::kInternal, "unknown GgufTransform");
}

at::Tensor from_gguf(const GgufTensorPlan& plan, const at::Tensor& stored) {
  const at::Tensor values = planned_shape(plan, stored);
  switch (plan.transform) {
    case GgufTransform::kNone: return values;
    case GgufTransform::kRopeRows: return at::index_select(values, 0, rope_row_order_inverse(values.size(0), plan.heads));
    case GgufTransform::kAddOne: return values.to(at::kFloat) - 1.0;
  }
  fail(ErrorKind::kInternal, "unknown GgufTransform");
}

}  // namespace salient::models
