// MLPs as TorchScript: forward(x) of a dense one or a shared expert, forward(x, expert) of all experts of a block.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/block_weights.h"
#include "models/torchscript/linear_node.h"

namespace salient::models {

// The activation as an expression of a tensor: "torch.silu(x)"; nothing where it is not known here.
std::optional<std::string> activation_text(std::string_view hidden_act, std::string_view x);

// `linears`: of one MLP. `weights`: its activation scales and xIELU's shape, if any.
ScriptNode mlp_node(const NodeSource& source, const std::vector<LinearSpec>& linears, const MlpWeights& weights);
// All experts of a block, [experts][linears].
ScriptNode experts_node(const NodeSource& source, const std::vector<std::vector<LinearSpec>>& experts);

}  // namespace salient::models
