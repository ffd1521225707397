// AWQ on one decoder block: from float weights and input statistics to stored tensors. Experts are shown one at a time, so that a
// block with many of them needs no more memory than its attention and one expert.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <vector>

#include "common/ranks.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/scaling_groups.h"
#include "pipeline/awq_linear.h"

namespace salient::pipeline {

using BlockStatistics = std::map<models::InputId, quant::InputStatistics>;
using ExpertLoader = std::function<models::MlpWeights(int64_t expert)>;

// What happens to linears that read one input, once their scales are applied: quantize_linears, or a measurement in its place.
using LinearsWork =
    std::function<std::vector<LinearReport>(const std::vector<LinearJob>& jobs, quant::InputStatistics input, bool search,
                                            const AwqOptions& options, const StoredDtype& stored, const TensorSink& sink)>;

class BlockObjective;

struct QuantizedBlock {
  models::BlockWeights weights;       // what is stored, float32, without experts: to propagate with
  std::vector<LinearReport> reports;  // in the order of the layout
  AppliedScales expert_input;         // what the gate_proj and up_proj of every expert must be multiplied by
};

// The groups of this block that are searched: all that the tensors allow, or those that options.mappings name.
std::vector<models::ScalingGroup> searched_groups(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                                  const AwqOptions& options);

// `weights`: float32, without experts, on the CPU; consumed. `statistics`: of every input of the layout's linears, on the CPU; each
// is let go when the last linear that reads it is done, where the caller moves them here. `stored`: dtypes of what is not packed.
// The block's parameters (sinks, router corrections, ...) are not stored here, except for an activation's divisor. `objective`:
// what modules of this block read, where options.objective asks for their outputs; null = the Gram loss for every group. `ranks`:
// the searches and the linears are shared out among them, and every one of them must call this with the same; rank 0 has all
// reports and puts all tensors, the others' sinks get nothing but what every rank makes. Null = this process does all.
QuantizedBlock quantize_block(const models::DecoderConfig& config, const models::BlockLayout& layout, models::BlockWeights weights,
                              BlockStatistics statistics, const ExpertLoader& load_expert, const AwqOptions& options,
                              const StoredDtype& stored, const TensorSink& sink, const LinearsWork& work = quantize_linears,
                              BlockObjective* objective = nullptr, Ranks* ranks = nullptr);

struct QuantizedExpert {
  models::MlpWeights weights;  // what is stored, float32
  std::vector<LinearReport> reports;
};

// `input`, `hidden`: statistics of what gate_proj and up_proj, and what down_proj read. routed_tokens 0: nothing is searched inside
// the expert.
QuantizedExpert quantize_expert(const models::DecoderConfig& config, int64_t block, int64_t expert, models::MlpWeights weights,
                                const quant::InputStatistics& input, const quant::InputStatistics& hidden,
                                const AppliedScales& expert_input, int64_t routed_tokens, const AwqOptions& options,
                                const StoredDtype& stored, const TensorSink& sink, const LinearsWork& work = quantize_linears);

}  // namespace salient::pipeline
