// Whether values fit the dtype that they are stored in: found before a quantization begins, or made to fit while it runs. Only
// float16 is in question; what is packed into codes has bounded scales.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "models/decoder/block_weights.h"
#include "models/decoder/scaling_groups.h"
#include "models/io/checkpoint.h"
#include "pipeline/awq_linear.h"

namespace salient::pipeline {

// Whether every value is finite once it is rounded to `dtype`. An undefined tensor fits.
bool fits(const at::Tensor& tensor, at::ScalarType dtype);
// "float16", as users write it.
std::string dtype_text(at::ScalarType dtype);

// The first tensor, by its name in the artifact, of what applying the group's scales changed, that is stored as floats and does not
// fit; "" when all fit. A norm's weight always does: models::apply_scales leaves to the linears what it cannot hold. `linear_of`:
// the weights of the group's linears.
std::string first_overflow(const models::ScalingGroup& group, const std::vector<models::LinearSpec>& specs,
                           const AwqOptions& options, const StoredDtype& stored,
                           const std::function<const models::FloatLinear&(models::LinearId)>& linear_of,
                           const models::Norm* smooth_norm = nullptr);

// Every norm, bias and float matrix of the blocks, and the norms and the bias outside of them, must fit what they are stored in as
// the source has them; a norm's weight only where no linears can take up what does not. Reads what a narrower dtype could cut off
// and no more; the embedding and lm_head not, which are stored before the first block. Errors: unsupported, with the tensor, the
// value, the dtype and what to do; corruption (NaN).
void check_stored_range(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options,
                        const StoredDtype& stored);

}  // namespace salient::pipeline
