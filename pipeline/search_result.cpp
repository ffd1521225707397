#include "pipeline/search_result.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "common/error.h"
#include "common/hash.h"
#include "pipeline/awq_block.h"
#include "pipeline/awq_linear.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/runtime_scheme.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;
using models::ScalingGroup;

constexpr std::string_view kDivisor = ".scales";

at::Tensor factors(const FoundClip& clip, const at::Tensor& places) {
  return clip.values.defined() ? clip.values.index_select(0, places.to(at::kLong).flatten()).view(places.sizes()) : places;
}

at::Tensor factor_of(const at::Tensor& limit, const at::Tensor& extreme) {
  return at::where(extreme > limit, limit / extreme.clamp_min(1e-30), at::ones_like(extreme));
}

std::string shape_text(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

// The parts of a search against one model.
class Checker {
 public:
  Checker(const SearchResult& search, const models::DecoderConfig& config, const AwqOptions& options)
      : search_(search), config_(config), options_(options) {}

  void check_block(int64_t block) {
    const models::BlockLayout layout = models::block_layout(config_, block);
    std::set<std::string> used;
    for (const ScalingGroup& group : searched_groups(config_, layout, options_)) used.insert(group.smooth_name);
    for (const ScalingGroup& group : models::scaling_groups(config_, layout)) {
      check_group(block, group, layout.linears);
      if (!used.contains(group.smooth_name) && find_scales(search_, group.smooth_name) != nullptr) ++unused_;
    }
    for (const LinearSpec& spec : layout.linears) check_clip(spec);
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      const std::vector<LinearSpec> linears = models::expert_layout(config_, block, expert);
      for (const ScalingGroup& group : models::expert_scaling_groups(config_, block, expert)) check_group(block, group, linears);
      for (const LinearSpec& spec : linears) check_clip(spec);
    }
  }

  std::vector<std::string> finish() const {
    for (const auto& [name, found] : search_.scales) {
      if (!known_scales_.contains(&found))
        fail_at("scales", name, "the model has no such operation that scale could be moved from");
    }
    for (const auto& [name, found] : search_.clips) {
      if (!known_clips_.contains(name)) fail_at("clip range", name, "the model has no such linear");
    }
    std::vector<std::string> notes;
    if (unused_ > 0)
      notes.push_back(
          fmt::format("{}: the scales of {} groups are not used: the format has no place for them, or 'mappings' leaves them out",
                      search_.file, unused_));
    if (unused_clips_ > 0)
      notes.push_back(fmt::format("{}: the clip ranges of {} linears are not used: clipping is off{}", search_.file, unused_clips_,
                                  gguf_format_of(options_.format) != nullptr ? ", as always for GGUF files" : ""));
    return notes;
  }

 private:
  [[noreturn]] void fail_at(std::string_view what, const std::string& name, const std::string& problem) const {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: {} of '{}': {}", search_.file, what, name, problem))
        .with_hint("give the search result of this model, or leave it out and search again");
  }

  void check_group(int64_t block, const ScalingGroup& group, const std::vector<LinearSpec>& linears) {
    const FoundScales* found = find_scales(search_, group.smooth_name);
    if (found == nullptr) return;
    known_scales_.insert(found);
    std::set<std::string> names;
    int64_t in_features = 0;
    for (const LinearSpec& spec : linears) {
      if (std::find(group.balance.begin(), group.balance.end(), spec.id) == group.balance.end()) continue;
      names.insert(spec.name);
      in_features = spec.in_features;
    }
    if (in_features == 0) in_features = models::expert_layout(config_, block, 0).front().in_features;
    const std::set<std::string> given(found->balance.begin(), found->balance.end());
    if (given != names)
      fail_at("scales", group.smooth_name,
              fmt::format("they are for {}, here {} read its output", fmt::join(given, ", "), fmt::join(names, ", ")));
    const at::Tensor& scales = found->scales;
    if (scales.dim() != 1 || scales.size(0) != in_features)
      fail_at("scales", group.smooth_name, fmt::format("found {}, expected [{}]", shape_text(scales), in_features));
    if (!scales.isfinite().logical_and(scales > 0).all().item<bool>())
      fail_at("scales", group.smooth_name, "found values that are not positive numbers");
    if (!group.tie.defined()) return;
    at::Tensor shared = at::zeros({group.tie.max().item<int64_t>() + 1}, scales.options());
    shared.index_put_({group.tie}, scales);
    if (!shared.index_select(0, group.tie).eq(scales).all().item<bool>())
      fail_at("scales", group.smooth_name, "channels that read the same output row have different scales");
  }

  void check_clip(const LinearSpec& spec) {
    const auto found = search_.clips.find(spec.name);
    if (found == search_.clips.end()) return;
    known_clips_.insert(spec.name);
    if (!options_.clip) ++unused_clips_;
    if (!options_.clip || !is_searched(spec, options_)) return;
    const at::Tensor& any = found->second.limit.defined() ? found->second.limit : found->second.low;
    const int64_t group_size = affine_options(options_, spec.name, spec.in_features).group_size;
    const int64_t groups = spec.in_features / group_size;
    if (any.dim() == 2 && any.size(0) == spec.out_features && any.size(1) == groups) return;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: clip range of '{}': found {}, expected [{}, {}] with groups of {}", search_.file, spec.name,
                            shape_text(any), spec.out_features, groups, group_size))
        .with_hint("clip ranges belong to a group size: give the one that was searched with, or --no-clip to use the scales alone");
  }

  const SearchResult& search_;
  const models::DecoderConfig& config_;
  const AwqOptions& options_;
  std::set<const FoundScales*> known_scales_;
  std::set<std::string> known_clips_;
  int64_t unused_ = 0;
  int64_t unused_clips_ = 0;
};

}  // namespace

std::string weights_fingerprint(const Json& source_hashes) {
  Json weights = Json::object();
  for (const auto& [name, hash] : source_hashes.items()) {
    if (name.ends_with(".safetensors")) weights[name] = hash;
  }
  return sha256_hex(dump_json(weights));
}

FoundClip pack_clip(const quant::ClipRange& range) {
  constexpr int64_t kMostPlaces = 256;
  const at::Tensor both = at::cat({range.low.flatten(), range.high.flatten()});
  const auto [values, places] = at::_unique(both, /*sorted=*/true, /*return_inverse=*/true);
  if (values.numel() > kMostPlaces) return {range.low, range.high, {}, {}};
  const at::Tensor bytes = places.to(at::kByte);
  const int64_t half = range.low.numel();
  return {bytes.narrow(0, 0, half).view(range.low.sizes()), bytes.narrow(0, half, half).view(range.high.sizes()), values, {}};
}

quant::ClipRange unpack_clip(const FoundClip& clip, const at::Tensor& weight) {
  if (!clip.limit.defined()) return {factors(clip, clip.low), factors(clip, clip.high)};
  const at::Tensor groups = weight.view({weight.size(0), clip.limit.size(1), -1});
  return {factor_of(clip.limit, -groups.amin(2)), factor_of(clip.limit, groups.amax(2))};
}

const FoundScales* find_scales(const SearchResult& search, const std::string& smooth_name) {
  auto found = search.scales.find(smooth_name);
  if (found == search.scales.end() && smooth_name.ends_with(kDivisor))
    found = search.scales.find(smooth_name.substr(0, smooth_name.size() - kDivisor.size()));
  return found == search.scales.end() ? nullptr : &found->second;
}

std::optional<quant::ScaleSearchResult> found_scales(const SearchResult& search, const ScalingGroup& group) {
  const FoundScales* found = find_scales(search, group.smooth_name);
  if (found == nullptr) return std::nullopt;
  return quant::ScaleSearchResult{found->scales, 0, 0, found->kind, found->ratio};
}

bool needs_calibration(const AwqOptions& options) {
  const bool rounds = row_of(options.format).rounds && !options.export_compatible;
  const bool nearest = !rounds || options.rounding.kind == quant::RoundingKind::kNearest;
  const bool kv_scales = written_runtime_bits(options).kv_bits.has_value();
  return options.search == nullptr || !nearest || options.target_bits > 0 || options.salient_ratio > 0 || kv_scales;
}

std::vector<std::string> check_search(const models::DecoderConfig& config, const AwqOptions& options) {
  if (options.search == nullptr) return {};
  const SearchResult& search = *options.search;
  if (!options.scale && !options.clip)
    fail(ErrorKind::kInvalidArgument, "{}: a search result is given, but 'scale' and 'clip' are off: nothing of it would be used",
         search.file);
  if (!search.model_type.empty() && search.model_type != config.model_type)
    fail(ErrorKind::kInvalidArgument, "{}: the search was made for a model of type '{}', this one is '{}'", search.file,
         search.model_type, config.model_type);
  Checker checker(search, config, options);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) checker.check_block(block);
  return checker.finish();
}

}  // namespace salient::pipeline
