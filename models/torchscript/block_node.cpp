#include "models/torchscript/block_node.h"

#include <string>
#include <vector>

#include "models/decoder/block_weights.h"
#include "models/torchscript/attention_source.h"
#include "models/torchscript/block_parts.h"
#include "models/torchscript/mixture_source.h"
#include "models/torchscript/mlp_node.h"
#include "models/torchscript/norm_node.h"
#include "models/torchscript/script_text.h"
#include "models/torchscript/slot_names.h"

namespace salient::models {
namespace {

std::string forward_source(const BlockParts& parts) {
  const DecoderConfig& config = parts.config;
  const std::string multiplier = config.residual_multiplier == 1.0 ? "" : " * " + real_literal(config.residual_multiplier);
  const auto normalized = [&](NormSlot slot, const std::string& x) {
    return parts.has(slot) ? fmt::format("self.{}.forward({})", script_name(slot), x) : x;
  };
  std::string text;
  add_line(text, "def forward(self, x: Tensor, {}) -> Tensor:", kContextParameters);
  add_line(text, "  a = {}", normalized(NormSlot::kAttentionInput, "x"));
  add_line(text, "  y = {}", normalized(NormSlot::kAttentionOutput, fmt::format("self.attention(a, {})", kContextArguments)));
  add_line(text, "  residual = {} + y{}", config.residual_from_norm ? "a" : "x", multiplier);
  if (config.parallel_residual) {
    add_line(text, "  m = {}", parts.has(NormSlot::kMlpInput) ? normalized(NormSlot::kMlpInput, "x") : "a");
  } else {
    add_line(text, "  m = {}", normalized(NormSlot::kMlpInput, "residual"));
    if (config.residual_from_norm) add_line(text, "  residual = m");
  }
  const std::string mlp = parts.layer().moe ? "self.mixture(m)" : "self.mlp.forward(m)";
  add_line(text, "  y = residual + {}{}", normalized(NormSlot::kMlpOutput, mlp), multiplier);
  if (parts.has(ParameterSlot::kOutputScale)) add_line(text, "  y = y * self.output_scale.to(y.dtype)");
  add_line(text, "  return y");
  return text;
}

at::Tensor load_parameter(const NodeSource& source, const BlockParts& parts, ParameterSlot slot) {
  for (const ParameterSpec& spec : parts.layout.parameters) {
    if (spec.slot == slot && (!spec.optional || source.checkpoint.contains(spec.name)))
      return source.checkpoint.load(spec.name, spec.shape, at::kFloat);
  }
  return {};
}

}  // namespace

ScriptNode block_node(const NodeSource& source, int64_t block) {
  const BlockParts parts(source.config, block);
  const auto parameter = [&](ParameterSlot slot) { return load_parameter(source, parts, slot); };
  ScriptNode node;
  node.kind = "Block";
  node.source = attention_source(parts);
  if (parts.layer().moe) node.source += mixture_source(parts);
  node.source += forward_source(parts);

  const auto add_parameter = [&](const char* name, ParameterSlot slot) {
    if (const at::Tensor tensor = parameter(slot); tensor.defined()) node.buffers.emplace_back(name, tensor);
  };
  add_parameter("sinks", ParameterSlot::kSinks);
  add_parameter("router_correction", ParameterSlot::kRouterCorrection);
  add_parameter("output_scale", ParameterSlot::kOutputScale);

  for (const NormSpec& spec : parts.layout.norms)
    node.children.emplace_back(script_name(spec.slot), norm_node(load_norm(source.checkpoint, spec, source.dtype, at::kCPU)));
  std::vector<LinearSpec> dense;
  std::vector<LinearSpec> shared;
  for (const LinearSpec& spec : parts.layout.linears) {
    if (spec.id.mlp == kSharedExpert) {
      shared.push_back(spec);
    } else if (spec.id.slot >= LinearSlot::kGateProj) {
      dense.push_back(spec);
    } else {
      node.children.emplace_back(script_name(spec.id.slot), linear_node(source, spec));
    }
  }
  if (!dense.empty()) {
    MlpWeights weights;
    weights.activation_scales = parameter(ParameterSlot::kActivationScales);
    weights.xielu = {parameter(ParameterSlot::kXieluAlphaP), parameter(ParameterSlot::kXieluAlphaN),
                     parameter(ParameterSlot::kXieluBeta), parameter(ParameterSlot::kXieluEps)};
    node.children.emplace_back("mlp", mlp_node(source, dense, weights));
  }
  if (!shared.empty()) node.children.emplace_back("shared_expert", mlp_node(source, shared, {}));
  if (parts.layer().moe) {
    std::vector<std::vector<LinearSpec>> experts;
    for (int64_t expert = 0; expert < parts.layout.experts; ++expert)
      experts.push_back(expert_layout(source.config, block, expert));
    node.children.emplace_back("experts", experts_node(source, experts));
  }
  return node;
}

}  // namespace salient::models
