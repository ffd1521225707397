// A LoRA adapter merged into its base while tensors are read.
#pragma once

#include "models/io/adapter.h"
#include "models/io/checkpoint.h"

namespace salient::models {

// From here on `checkpoint`, which shows the adapter's base, shows the weights W' of models/io/adapter.h, computed in float32 when
// a tensor is read and rounded once, to what the reader asks for. Nothing is kept: reading a tensor holds it in float32, and the
// adapter's two matrices.
//
// The modules of a model that ties its head to its embedding are changed one by one, as PEFT's forward pass does: where the adapter
// changes one of the two, the checkpoint has an lm_head of its own and says tie_word_embeddings false, unless ensure_weight_tying
// wants both changed. An embedding with more rows changes vocab_size. Errors: corruption (a module or tensor that the base has not,
// shapes that do not fit, a bias of B where the base has none), unsupported (a base whose weights are packed).
void merge_adapter(Checkpoint& checkpoint, const Adapter& adapter);

}  // namespace salient::models
