// One decoder block as TorchScript: forward(x, <context of attention_source.h>), as models/decoder/block.h describes it.
#pragma once

#include "models/torchscript/linear_node.h"

namespace salient::models {

// Errors: those of load_linear and load_norm.
ScriptNode block_node(const NodeSource& source, int64_t block);

}  // namespace salient::models
