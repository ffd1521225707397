// A mixture of experts as TorchScript text: mixture(self, x) of a block that has the children router, experts and, where the
// configuration has them, shared_expert and shared_expert_gate, and the buffer router_correction. What models/decoder/router.cpp
// computes.
#pragma once

#include <string>

#include "models/torchscript/block_parts.h"

namespace salient::models {

std::string mixture_source(const BlockParts& parts);

}  // namespace salient::models
