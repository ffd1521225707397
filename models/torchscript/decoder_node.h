// A whole decoder as TorchScript:
//
//   forward(input_ids: int64 [batch, length]) -> float32 logits [batch, length, vocab]
//   make_cache(batch: int, capacity: int) -> List[Tensor]   keys and values of every block, [batch, key heads, capacity, head_dim]
//   step(input_ids, cache, position: int) -> float32 logits [batch, vocab] after the last of input_ids. `position` tokens of the cache are
//     filled; those of input_ids, one or more a row, are written after them.
//
// All tokens are taken as real. Rows that are padded on the right give the right logits at their own tokens.
#pragma once

#include "models/torchscript/linear_node.h"

namespace salient::models {

// `source.config` must have passed torchscript_supports. Errors: those of load_linear, load_norm and load_embedding.
ScriptNode decoder_node(const NodeSource& source);

}  // namespace salient::models
