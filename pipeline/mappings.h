// Custom mappings (see SmoothMapping) against the groups that a model's tensors allow.
#pragma once

#include <string>
#include <vector>

#include "models/decoder/scaling_groups.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Of `groups`, those that a mapping names: its smooth_layer matches the group's smooth operation, and its balance_layers match
// linears of the group. Linears of the group that are not named but read the same input (routers, gates, others) are scaled with
// it, since the function would change otherwise. No mappings: all groups.
std::vector<models::ScalingGroup> select_groups(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                                std::vector<models::ScalingGroup> groups,
                                                const std::vector<SmoothMapping>& mappings);
std::vector<models::ScalingGroup> select_expert_groups(const models::DecoderConfig& config, int64_t block, int64_t expert,
                                                       std::vector<models::ScalingGroup> groups,
                                                       const std::vector<SmoothMapping>& mappings);

// Before any work, over all blocks. Errors: invalid argument for a pattern that matches nothing (with the nearest names), and for a
// mapping whose layers match but are no group, even if others of the same mapping are one (with what matched, and the groups that
// are there).
void check_mappings(const models::DecoderConfig& config, const std::vector<SmoothMapping>& mappings);
// The same for AwqOptions::ignore. A pattern that is among `may_miss` (AwqOptions::ignore_may_miss) is no error: what comes back
// says, once for each, that it matches nothing.
std::vector<std::string> check_ignore(const models::DecoderConfig& config, const std::vector<std::string>& ignore,
                                      const std::vector<std::string>& may_miss = {});
// The same for AwqOptions::overrides.
std::vector<std::string> check_overrides(const models::DecoderConfig& config, const std::vector<ModuleOverride>& overrides);

}  // namespace salient::pipeline
