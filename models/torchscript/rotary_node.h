// A rotary embedding as TorchScript: forward(positions int64 [1, tokens], total) -> (cos, sin), as make_rotary_table gives them for
// a row of `total` tokens; and the text that turns queries and keys.
#pragma once

#include <string>

#include "models/decoder/rope.h"
#include "models/torchscript/script_node.h"

namespace salient::models {

// dtype: of the table.
ScriptNode rotary_node(const RopeConfig& rope, at::ScalarType dtype);

// The method rotate(self, x, cos, sin) for x [batch, heads, tokens, head_dim].
std::string rotate_source(const RopeConfig& rope, int64_t head_dim);

}  // namespace salient::models
