// The groups through which scale was moved (models/decoder/scaling_groups.h), judged from the weights alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"
#include "pipeline/tensor_change.h"

namespace salient::pipeline {

// By tensor name: one fit of a matrix, or one for each matrix of a stack of them. Tensors that did not change are not
// in it; those that changed in another way have no fit, and nothing is said of their groups.
using SmoothingFits = std::map<std::string, std::vector<ScalingFit>>;

struct GroupCheck {
  int64_t moved = 0;  // groups whose smooth operation was divided
  // "model.layers.1.input_layernorm was divided, but model.layers.1.self_attn.k_proj was not multiplied to match (its input
  // channels are off by a factor of 1.45 in the mean)"
  std::vector<std::string> broken;
};

// Every linear of a group must have been multiplied by what the smooth operation was divided by, to 4 machine epsilons of the
// coarsest dtype in the mean over channels. A factor that all channels share cannot be seen where rows and columns of one matrix
// were both scaled.
GroupCheck check_groups(const models::Checkpoint& base, const models::Checkpoint& smoothed, const models::DecoderConfig& config,
                        const SmoothingFits& fits);

}  // namespace salient::pipeline
