// The float weights of a block as they were just before they were rounded.
//
// AWQ moves scale between the operations of a block (models/decoder/scaling_groups.h) and rounds what that gives. Single linears of
// such a block fit beside those of its base only when the base's are scaled alike. By what, the two models' weights say:
//
//   norm -> linears         old weight / new weight: exactly what was applied
//   activation -> down_proj the divisor, as it is stored
//   v_proj -> o_proj,       both were rounded: given by the search's file, else estimated from what the first puts out over some
//   up_proj -> down_proj    tokens: s is the ratio of the sizes of a channel's float and rounded output. Rounding changes these in
//                           second order only. Weights alone do not tell so well: compensated rounding moves them further.
//
// No group reaches beyond its block, so that whole blocks can be exchanged as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "models/decoder/block_layout.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/decoder_config.h"
#include "models/decoder/scaling_groups.h"

namespace salient::eval {

// What the base's linears read over some tokens, float32 [tokens, features] on the CPU.
using BlockInputs = std::map<models::InputId, at::Tensor>;

// Scales of a group whose smooth operation is a linear: float32 [in_features of the balance linears]; undefined = not known.
using KnownScales = std::function<at::Tensor(const models::ScalingGroup&)>;

struct GroupScales {
  models::ScalingGroup group;
  at::Tensor scales;                           // float32 [in_features of the balance linears], on the CPU
  std::vector<models::LinearSlot> of_experts;  // every expert's linears that read the smooth operation, too
};

struct BlockSmoothing {
  std::vector<GroupScales> groups;                // those through which scale was moved
  std::vector<std::vector<GroupScales>> experts;  // the same inside of each expert
  int64_t estimated = 0;                          // of all of these
  double uncertainty = 0;  // of an estimated scale: relative, root mean square over channels, the largest of any group
};

// `inputs`: at least those of the linears whose rows were divided. Errors: unsupported where the base's linears are not floats or
// shapes differ; check failed where the model's weights are not the base's after any such scaling: rotated, another model's, or
// `known` scales of another search.
BlockSmoothing find_smoothing(const models::DecoderConfig& config, int64_t block, const models::BlockWeights& base,
                              const models::BlockWeights& model, const BlockInputs& inputs, const KnownScales& known = {});

// The base's block, scaled: the same function. In the dtype and on the device of the base's.
models::BlockWeights smoothed(const BlockSmoothing& smoothing, const models::BlockWeights& base);

// ||a - b|| / ||b|| of two matrices of one shape, with rows converted to float32 a part at a time; infinity where shapes differ.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

}  // namespace salient::eval
