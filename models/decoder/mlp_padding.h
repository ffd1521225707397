// Gated MLPs made wider by channels that are always 0: zero rows in gate_proj and up_proj, act(0) * 0, and zero columns in
// down_proj that would read them. The model's function stays what it was. For kernels that want other widths than a model has: the
// 29568 = 231 * 128 of Qwen2-72B cannot be split over two GPUs in groups of 128, 29696 can
// (https://github.com/vllm-project/vllm/issues/5675).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"

namespace salient::models {

struct WidenedMlp {
  std::string key;  // of config.json: "intermediate_size", "moe_intermediate_size", ...
  int64_t from = 0;
  int64_t to = 0;
};

// Dense MLPs, shared and routed experts; what follows from one key of config.json changes together. `width_for`: the width wanted
// in the place of one, not smaller. Returns what was changed, in the order of the keys; nothing where every width is wanted as it
// is. Afterwards the checkpoint shows the wider tensors, and the wider model in its config. Errors: unsupported, for an MLP without
// a gate, for one whose width no key of config.json gives, and for a checkpoint that has divisors of activations.
std::vector<WidenedMlp> widen_mlps(Checkpoint& checkpoint, const std::function<int64_t(int64_t width)>& width_for);

}  // namespace salient::models
