#include "models/torchscript/mlp_node.h"

#include <algorithm>

#include "common/error.h"
#include "models/torchscript/script_text.h"
#include "models/torchscript/slot_names.h"

namespace salient::models {
namespace {

struct ActivationText {
  std::string_view name;
  std::string_view text;  // "{}" stands for the tensor
};
// The rows of models/decoder/mlp.cpp.
constexpr ActivationText kActivations[] = {
    {"silu", "torch.silu({0})"},
    {"swish", "torch.silu({0})"},
    {"gelu", "torch.gelu({0})"},
    {"gelu_new", "torch.gelu({0}, approximate=\"tanh\")"},
    {"gelu_fast", "torch.gelu({0}, approximate=\"tanh\")"},
    {"gelu_pytorch_tanh", "torch.gelu({0}, approximate=\"tanh\")"},
    {"quick_gelu", "({0} * torch.sigmoid(1.702 * {0}))"},
    {"relu", "torch.relu({0})"},
    {"relu2", "torch.square(torch.relu({0}))"},
};

struct MlpShape {
  bool gate = false;
  bool gate_up = false;
  bool scales = false;
  bool xielu = false;
  bool experts = false;
};

std::string mlp_source(const DecoderConfig& config, const MlpShape& shape) {
  std::string text;
  const std::string_view index = shape.experts ? ", expert" : "";
  const auto activate = [&](std::string_view x) {
    const auto found = activation_text(config.hidden_act, x);
    if (!found) fail(ErrorKind::kInternal, "activation '{}' was not checked", config.hidden_act);
    return *found;
  };
  add_line(text, "def forward(self, x: Tensor{}) -> Tensor:", shape.experts ? ", expert: int" : "");
  if (shape.gate_up) {
    add_line(text, "  both = self.gate_up_proj.forward(x{})", index);
    add_line(text, "  width = both.size(-1) // 2");
    add_line(text, "  gate = both.narrow(-1, 0, width)");
    add_line(text, "  up = both.narrow(-1, width, width)");
  } else {
    if (shape.gate) add_line(text, "  gate = self.gate_proj.forward(x{})", index);
    add_line(text, "  up = self.up_proj.forward(x{})", index);
  }
  if (shape.xielu) {
    add_line(text, "  wide = up.to(6)");
    add_line(text, "  right = torch.softplus(self.alpha_p) * torch.square(wide)");
    add_line(text, "  left = (torch.expm1(torch.minimum(wide, self.eps)) - wide) * (self.beta + torch.softplus(self.alpha_n))");
    add_line(text, "  hidden = (torch.where(wide > 0, right, left) + self.beta * wide).to(up.dtype)");
  } else if (!shape.gate && !shape.gate_up) {
    add_line(text, "  hidden = {}", activate("up"));
  } else if (config.moe.swiglu_limit > 0.0) {
    const std::string limit = real_literal(config.moe.swiglu_limit);
    add_line(text, "  bounded = torch.clamp(gate, None, {})", limit);
    add_line(text, "  hidden = (torch.clamp(up, -{}, {}) + 1.0) * (bounded * torch.sigmoid({} * bounded))", limit, limit,
             real_literal(config.moe.swiglu_alpha));
  } else {
    add_line(text, "  hidden = {} * up", activate("gate"));
  }
  if (shape.scales) add_line(text, "  hidden = hidden / self.activation_scales.to(hidden.dtype)");
  add_line(text, "  return self.down_proj.forward(hidden{})", index);
  return text;
}

void add_xielu(ScriptNode& node, const Xielu& xielu) {
  const auto or_default = [&](const at::Tensor& tensor, double value) {
    return tensor.defined() ? tensor : xielu.alpha_p.new_full({}, value);
  };
  node.buffers.emplace_back("alpha_p", xielu.alpha_p);
  node.buffers.emplace_back("alpha_n", xielu.alpha_n);
  node.buffers.emplace_back("beta", or_default(xielu.beta, 0.5));
  node.buffers.emplace_back("eps", or_default(xielu.eps, -1e-6));
}

bool has(const std::vector<LinearSpec>& linears, LinearSlot slot) {
  return std::any_of(linears.begin(), linears.end(), [&](const LinearSpec& spec) { return spec.id.slot == slot; });
}

}  // namespace

std::optional<std::string> activation_text(std::string_view hidden_act, std::string_view x) {
  for (const ActivationText& row : kActivations) {
    if (row.name == hidden_act) return fmt::format(fmt::runtime(row.text), x);
  }
  return std::nullopt;
}

ScriptNode mlp_node(const NodeSource& source, const std::vector<LinearSpec>& linears, const MlpWeights& weights) {
  ScriptNode node;
  node.kind = "Mlp";
  node.source = mlp_source(source.config, {.gate = has(linears, LinearSlot::kGateProj),
                                           .gate_up = has(linears, LinearSlot::kGateUpProj),
                                           .scales = weights.activation_scales.defined(),
                                           .xielu = weights.xielu.alpha_p.defined()});
  if (weights.activation_scales.defined()) node.buffers.emplace_back("activation_scales", weights.activation_scales);
  if (weights.xielu.alpha_p.defined()) add_xielu(node, weights.xielu);
  for (const LinearSpec& spec : linears) node.children.emplace_back(script_name(spec.id.slot), linear_node(source, spec));
  return node;
}

ScriptNode experts_node(const NodeSource& source, const std::vector<std::vector<LinearSpec>>& experts) {
  const std::vector<LinearSpec>& first = experts.front();
  ScriptNode node;
  node.kind = "Experts";
  node.source = mlp_source(
      source.config, {.gate = has(first, LinearSlot::kGateProj), .gate_up = has(first, LinearSlot::kGateUpProj), .experts = true});
  for (size_t linear = 0; linear < first.size(); ++linear) {
    std::vector<LinearSpec> specs;
    for (const std::vector<LinearSpec>& expert : experts) specs.push_back(expert[linear]);
    node.children.emplace_back(script_name(first[linear].id.slot), experts_linear_node(source, specs));
  }
  return node;
}

}  // namespace salient::models
