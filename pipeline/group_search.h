// The scale search of a block's groups: on the untouched weights, group by group.
#pragma once

#include <optional>
#include <vector>

#include "common/ranks.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/scaling_groups.h"
#include "pipeline/awq_block.h"
#include "pipeline/block_objective.h"
#include "quant/scale_search.h"

namespace salient::pipeline {

// Errors: internal when it is not there.
const models::LinearSpec& spec_of(const std::vector<models::LinearSpec>& specs, models::LinearId id);

// What the groups of a block are searched with. All of it is the caller's and outlives the search.
struct BlockSearch {
  const models::DecoderConfig& config;
  const models::BlockLayout& layout;
  const models::BlockWeights& weights;  // not touched yet
  const BlockStatistics& statistics;
  const UntouchedWeights& untouched;  // of linears that were measured already
  const ExpertLoader& load_expert;
  const AwqOptions& options;  // with options.search nothing is searched: it is what that has
  BlockObjective* objective;  // as of quantize_block
};

// What is found for each of `groups`, in their order; nothing for one of whose linears none is rounded. `ranks`: as of
// quantize_block; each group is searched by one of them, and all know what is found. A group that every expert belongs to is the
// dearest by far, and one rank's.
std::vector<std::optional<quant::ScaleSearchResult>> search_groups(const BlockSearch& block,
                                                                   const std::vector<models::ScalingGroup>& groups, Ranks* ranks);

}  // namespace salient::pipeline
