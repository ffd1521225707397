#include "pipeline/mappings.h"

#include <algorithm>
#include <set>

#include "common/error.h"
#include "common/text.h"
#include "models/decoder/architecture.h"
#include "pipeline/module_pattern.h"

namespace salient::pipeline {
namespace {

using models::LinearId;
using models::LinearSpec;
using models::ScalingGroup;

constexpr size_t kListed = 6;

std::string list_some(const std::vector<std::string>& names) {
  if (names.empty()) return "nothing";
  const size_t count = std::min(names.size(), kListed);
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(count), ", "));
  if (names.size() > count) text += fmt::format(" and {} more", names.size() - count);
  return text;
}

// ".scales" of an activation is a tensor; mappings name the module.
std::string divided_module(const std::string& divisor) { return divisor.substr(0, divisor.rfind('.')); }

std::string smooth_module(const ScalingGroup& group) {
  return std::holds_alternative<models::ParameterSlot>(group.smooth) ? divided_module(group.smooth_name) : group.smooth_name;
}

std::vector<std::string> names_in_group(const ScalingGroup& group, const std::vector<LinearSpec>& linears,
                                        const std::vector<LinearSpec>& expert) {
  std::vector<std::string> names;
  for (const LinearSpec& spec : linears) {
    if (std::find(group.balance.begin(), group.balance.end(), spec.id) != group.balance.end()) names.push_back(spec.name);
  }
  for (const LinearSpec& spec : expert) {
    if (group.experts && spec.input == group.input) names.push_back(spec.name);
  }
  return names;
}

bool is_named(const SmoothMapping& mapping, const ScalingGroup& group, const std::vector<std::string>& names) {
  return matches_pattern(mapping.smooth_layer, smooth_module(group)) &&
         std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return matches_any(mapping.balance_layers, name); });
}

std::vector<ScalingGroup> select(std::vector<ScalingGroup> groups, const std::vector<LinearSpec>& linears,
                                 const std::vector<LinearSpec>& expert, const std::vector<SmoothMapping>& mappings) {
  if (mappings.empty()) return groups;
  std::erase_if(groups, [&](const ScalingGroup& group) {
    const std::vector<std::string> names = names_in_group(group, linears, expert);
    return std::none_of(mappings.begin(), mappings.end(),
                        [&](const SmoothMapping& mapping) { return is_named(mapping, group, names); });
  });
  return groups;
}

std::vector<LinearSpec> first_expert(const models::DecoderConfig& config, const models::BlockLayout& layout) {
  return layout.experts > 0 ? models::expert_layout(config, layout.block, 0) : std::vector<LinearSpec>{};
}

// Every module that a pattern may name, and every group as "smooth -> balance".
struct ModelModules {
  std::vector<std::string> linears;
  std::vector<std::string> smooth;
  std::vector<std::string> groups;  // of the first block
};

ModelModules collect(const models::DecoderConfig& config) {
  ModelModules modules;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    for (const LinearSpec& spec : layout.linears) modules.linears.push_back(spec.name);
    for (const models::NormSpec& spec : layout.norms) modules.smooth.push_back(spec.names.front());
    for (const models::ParameterSpec& spec : layout.parameters) {
      if (spec.slot == models::ParameterSlot::kActivationScales) modules.smooth.push_back(divided_module(spec.name));
    }
    const std::vector<LinearSpec> expert = first_expert(config, layout);
    for (int64_t index = 0; index < layout.experts; ++index) {
      for (const LinearSpec& spec : models::expert_layout(config, block, index)) modules.linears.push_back(spec.name);
    }
    if (block > 0) continue;
    std::vector<ScalingGroup> groups = models::scaling_groups(config, layout);
    if (layout.experts > 0) {
      for (ScalingGroup& group : models::expert_scaling_groups(config, block, 0)) groups.push_back(std::move(group));
    }
    std::vector<LinearSpec> all = layout.linears;
    all.insert(all.end(), expert.begin(), expert.end());
    for (const ScalingGroup& group : groups) {
      modules.groups.push_back(fmt::format("{} -> {}", smooth_module(group), fmt::join(names_in_group(group, all, expert), ", ")));
    }
  }
  modules.smooth.insert(modules.smooth.end(), modules.linears.begin(), modules.linears.end());
  return modules;
}

std::vector<std::string> matching(const std::vector<std::string>& patterns, const std::vector<std::string>& names) {
  std::vector<std::string> found;
  std::copy_if(names.begin(), names.end(), std::back_inserter(found),
               [&](const std::string& name) { return matches_any(patterns, name); });
  return found;
}

// The last components of the names, as many as the pattern has: a misspelt "q_prj" is near to "q_proj", not to a whole name.
std::vector<std::string> endings(const std::vector<std::string>& names, const std::string& pattern) {
  const auto dots = static_cast<size_t>(std::count(pattern.begin(), pattern.end(), '.'));
  std::set<std::string> found;
  for (const std::string& name : names) {
    size_t begin = name.size();
    for (size_t i = 0; i <= dots && begin != std::string::npos; ++i)
      begin = begin == 0 ? std::string::npos : name.rfind('.', begin - 1);
    found.insert(begin == std::string::npos ? name : name.substr(begin + 1));
  }
  return {found.begin(), found.end()};
}

[[noreturn]] void fail_unmatched(const std::string& what, const std::string& pattern, const std::vector<std::string>& names) {
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{} '{}' matches no module of this model", what, pattern))
      .with_hint(fmt::format("its modules are called {}{}", list_some(names), did_you_mean(pattern, endings(names, pattern))));
}

// Of a mapping's balance_layers, those that name no linear of the groups that the mapping selects, in any block.
std::vector<std::string> unused_patterns(const models::DecoderConfig& config, const SmoothMapping& mapping) {
  std::vector<std::string> unused = mapping.balance_layers;
  const auto use = [&](const std::vector<ScalingGroup>& groups, const std::vector<LinearSpec>& linears,
                       const std::vector<LinearSpec>& expert) {
    for (const ScalingGroup& group : groups) {
      const std::vector<std::string> names = names_in_group(group, linears, expert);
      std::erase_if(unused, [&](const std::string& pattern) {
        return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return matches_pattern(pattern, name); });
      });
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers && !unused.empty(); ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    use(select_groups(config, layout, models::scaling_groups(config, layout), {mapping}), layout.linears,
        first_expert(config, layout));
    for (int64_t expert = 0; expert < layout.experts && !unused.empty(); ++expert) {
      use(select_expert_groups(config, block, expert, models::expert_scaling_groups(config, block, expert), {mapping}),
          models::expert_layout(config, block, expert), {});
    }
  }
  return unused;
}

}  // namespace

std::vector<ScalingGroup> select_groups(const models::DecoderConfig& config, const models::BlockLayout& layout,
                                        std::vector<ScalingGroup> groups, const std::vector<SmoothMapping>& mappings) {
  return select(std::move(groups), layout.linears, first_expert(config, layout), mappings);
}

std::vector<ScalingGroup> select_expert_groups(const models::DecoderConfig& config, int64_t block, int64_t expert,
                                               std::vector<ScalingGroup> groups, const std::vector<SmoothMapping>& mappings) {
  return select(std::move(groups), models::expert_layout(config, block, expert), {}, mappings);
}

void check_mappings(const models::DecoderConfig& config, const std::vector<SmoothMapping>& mappings) {
  if (mappings.empty()) return;
  const ModelModules modules = collect(config);
  for (const SmoothMapping& mapping : mappings) {
    const std::vector<std::string> smooth = matching({mapping.smooth_layer}, modules.smooth);
    if (smooth.empty()) fail_unmatched("mappings: smooth_layer", mapping.smooth_layer, modules.smooth);
    for (const std::string& pattern : mapping.balance_layers) {
      if (matching({pattern}, modules.linears).empty()) fail_unmatched("mappings: balance_layers", pattern, modules.linears);
    }
    const std::vector<std::string> unused = unused_patterns(config, mapping);
    if (unused.empty()) continue;
    throw Error(ErrorKind::kInvalidArgument, fmt::format("mappings: scaling {} into {} would change what the model computes: "
                                                         "smooth_layer '{}' matches {}; balance_layers match {}",
                                                         mapping.smooth_layer, fmt::join(unused, ", "), mapping.smooth_layer,
                                                         list_some(smooth), list_some(matching(unused, modules.linears))))
        .with_hint("possible in the first block: " + fmt::format("{}", fmt::join(modules.groups, "; ")));
  }
}

std::vector<std::string> check_ignore(const models::DecoderConfig& config, const std::vector<std::string>& ignore,
                                      const std::vector<std::string>& may_miss) {
  std::vector<std::string> names = collect(config).linears;
  names.emplace_back("lm_head");
  names.emplace_back(config.names.lm_head);
  std::vector<std::string> notes;
  for (const std::string& pattern : std::set<std::string>(ignore.begin(), ignore.end())) {
    if (!matching({pattern}, names).empty()) continue;
    if (std::find(may_miss.begin(), may_miss.end(), pattern) == may_miss.end()) fail_unmatched("ignore:", pattern, names);
    notes.push_back(fmt::format("ignore: '{}' matches no module of this model, nothing is left out by it", pattern));
  }
  return notes;
}

std::vector<std::string> check_overrides(const models::DecoderConfig& config, const std::vector<ModuleOverride>& overrides) {
  const std::vector<std::string> names = overrides.empty() ? std::vector<std::string>{} : collect(config).linears;
  std::vector<std::string> notes;
  for (const ModuleOverride& override : overrides) {
    if (!matching({override.pattern}, names).empty()) continue;
    if (!override.may_miss) fail_unmatched("overrides:", override.pattern, names);
    notes.push_back(fmt::format("overrides: '{}' matches no linear of this model, nothing is changed by it", override.pattern));
  }
  return notes;
}

}  // namespace salient::pipeline
