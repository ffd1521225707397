// A norm as TorchScript: forward(x), over the last dimension, as models/decoder/norm.h computes it.
#pragma once

#include "models/decoder/norm.h"
#include "models/torchscript/script_node.h"

namespace salient::models {

// `norm.present` must be true.
ScriptNode norm_node(const Norm& norm);

}  // namespace salient::models
