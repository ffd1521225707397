#include "pipeline/smoothing_groups.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>

#include "models/decoder/scaling_groups.h"

namespace salient::pipeline {
namespace {

using models::Checkpoint;
using models::DecoderConfig;
using models::LinearSpec;
using models::ScalingGroup;

// How one linear, or norm, was scaled: natural logarithms, NaN where nothing can be said. Empty = not at all.
struct Scaled {
  std::vector<double> rows;
  std::vector<double> columns;
  bool ambiguous = false;  // a common factor may belong to either
};

double epsilon(at::ScalarType dtype) { return std::ldexp(1.0, dtype == at::kBFloat16 ? -7 : dtype == at::kHalf ? -10 : -16); }

// Nothing when it changed, but not by a scaling.
std::optional<Scaled> scaled_linear(const Checkpoint& base, const LinearSpec& spec, const SmoothingFits& fits) {
  const std::string own = spec.name + ".weight";
  const bool fused = spec.fused && !base.contains(own);
  const auto it = fits.find(fused ? spec.fused->tensor : own);
  if (it == fits.end()) return Scaled{};
  const auto index = fused ? static_cast<size_t>(spec.fused->expert) : 0;
  if (index >= it->second.size()) return std::nullopt;
  const ScalingFit& fit = it->second[index];
  Scaled scaled{fit.log_rows, fit.log_columns, fit.rows_moved && fit.columns_moved};
  if (!fused) return scaled;
  if (spec.fused->transposed) std::swap(scaled.rows, scaled.columns);
  std::vector<double> own_rows;
  for (int64_t row = 0; row < spec.out_features; ++row) {
    own_rows.push_back(scaled.rows.at(static_cast<size_t>(spec.fused->row_begin + row * spec.fused->row_step)));
  }
  scaled.rows = std::move(own_rows);
  return scaled;
}

Scaled scaled_norm(const Checkpoint& base, const Checkpoint& smoothed, const models::NormSpec& spec) {
  const std::string name = spec.names.front() + ".weight";
  if (!base.contains(name) || !smoothed.contains(name)) return {};
  const double one = models::stored_weight_offset(spec.kind);
  const at::Tensor before = base.view(name).to(at::kDouble).flatten() + one;
  const at::Tensor after = smoothed.view(name).to(at::kDouble).flatten() + one;
  if (before.equal(after)) return {};
  Scaled scaled;
  for (int64_t i = 0; i < before.numel(); ++i) {
    const double ratio = after.const_data_ptr<double>()[i] / before.const_data_ptr<double>()[i];
    scaled.rows.push_back(ratio > 0 && std::isfinite(ratio) ? std::log(ratio) : std::numeric_limits<double>::quiet_NaN());
  }
  return scaled;
}

// A mean over the channels of which something is known.
struct Deviation {
  double scale = 0;  // mean |log s|, of what the smooth operation was divided by
  double off = 0;    // mean |log c - log s|
};

std::optional<Deviation> deviation(const std::vector<double>& wanted, const Scaled& linear, bool ambiguous) {
  std::vector<double> differences;
  double scale = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double column = linear.columns.empty()      ? 0.0
                          : i < linear.columns.size() ? linear.columns[i]
                                                      : std::numeric_limits<double>::quiet_NaN();
    if (std::isnan(wanted[i]) || std::isnan(column)) continue;
    differences.push_back(column - wanted[i]);
    scale += std::fabs(wanted[i]);
  }
  if (differences.empty()) return std::nullopt;
  double common = 0;
  if (ambiguous) {
    std::vector<double> sorted = differences;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2), sorted.end());
    common = sorted[sorted.size() / 2];
  }
  double off = 0;
  for (const double difference : differences) off += std::fabs(difference - common);
  const auto n = static_cast<double>(differences.size());
  return Deviation{scale / n, off / n};
}

class GroupChecker {
 public:
  GroupChecker(const Checkpoint& base, const Checkpoint& smoothed, const DecoderConfig& config, const SmoothingFits& fits)
      : base_(base), smoothed_(smoothed), config_(config), fits_(fits) {}

  void check_block(int64_t block) {
    const models::BlockLayout layout = models::block_layout(config_, block);
    std::vector<LinearSpec> experts;
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      const std::vector<LinearSpec> specs = models::expert_layout(config_, block, expert);
      for (const ScalingGroup& group : models::expert_scaling_groups(config_, block, expert)) check(group, layout, specs, {});
      experts.insert(experts.end(), specs.begin(), specs.end());
    }
    for (const ScalingGroup& group : models::scaling_groups(config_, layout))
      check(group, layout, layout.linears, group.experts ? experts : std::vector<LinearSpec>{});
  }

  GroupCheck result;

 private:
  void check(const ScalingGroup& group, const models::BlockLayout& layout, const std::vector<LinearSpec>& linears,
             const std::vector<LinearSpec>& experts) {
    if (std::holds_alternative<models::ParameterSlot>(group.smooth)) return;  // float checkpoints have none
    Scaled smooth;
    int64_t rows = 0;
    if (const auto* norm = std::get_if<models::NormSlot>(&group.smooth)) {
      for (const models::NormSpec& spec : layout.norms) {
        if (spec.slot != *norm) continue;
        smooth = scaled_norm(base_, smoothed_, spec);
        rows = spec.features;
      }
    } else {
      for (const LinearSpec& spec : linears) {
        if (spec.id != std::get<models::LinearId>(group.smooth)) continue;
        const std::optional<Scaled> found = scaled_linear(base_, spec, fits_);
        if (!found) return;
        smooth = *found;
        rows = spec.out_features;
      }
    }
    if (smooth.rows.empty()) smooth.rows.assign(static_cast<size_t>(rows), 0.0);
    bool counted = false;
    const auto check_linear = [&](const LinearSpec& spec) {
      const std::vector<double> wanted = wanted_columns(group, smooth.rows, spec.in_features);
      const std::optional<Scaled> linear = scaled_linear(base_, spec, fits_);
      if (!linear) return;
      const std::optional<Deviation> found = deviation(wanted, *linear, linear->ambiguous || smooth.ambiguous);
      const std::string tensor = base_.contains(spec.name + ".weight") ? spec.name + ".weight"
                                 : spec.fused                          ? spec.fused->tensor
                                                                       : "";
      if (!found || tensor.empty()) return;
      const double allowed = 4 * std::max(epsilon(base_.info(tensor).dtype), smooth_epsilon(group));
      counted |= found->scale > allowed;
      if (found->off <= allowed) return;
      const std::string how = linear->columns.empty()  ? "was not multiplied"
                              : found->scale > allowed ? "was not multiplied to match"
                                                       : "was multiplied";
      result.broken.push_back(fmt::format("{} {}, but {} {} (its input channels are off by a factor of {:.3g} in the mean)",
                                          group.smooth_name, found->scale > allowed ? "was divided" : "was not divided", spec.name,
                                          how, std::exp(found->off)));
    };
    for (const LinearSpec& spec : linears) {
      if (std::find(group.balance.begin(), group.balance.end(), spec.id) != group.balance.end()) check_linear(spec);
    }
    for (const LinearSpec& spec : experts) {
      if (spec.input == group.input) check_linear(spec);
    }
    result.moved += counted;
  }

  // log s of each input channel of the balance linears.
  static std::vector<double> wanted_columns(const ScalingGroup& group, const std::vector<double>& log_rows, int64_t in_features) {
    std::vector<double> wanted;
    for (int64_t i = 0; i < in_features; ++i) {
      const int64_t row = group.channels.defined() ? group.channels.const_data_ptr<int64_t>()[i] : i;
      wanted.push_back(row < static_cast<int64_t>(log_rows.size()) ? -group.power * log_rows[static_cast<size_t>(row)]
                                                                   : std::numeric_limits<double>::quiet_NaN());
    }
    return wanted;
  }

  double smooth_epsilon(const ScalingGroup& group) const {
    const std::string name = group.smooth_name + ".weight";
    return base_.contains(name) ? epsilon(base_.info(name).dtype) : 0.0;
  }

  const Checkpoint& base_;
  const Checkpoint& smoothed_;
  const DecoderConfig& config_;
  const SmoothingFits& fits_;
};

}  // namespace

GroupCheck check_groups(const Checkpoint& base, const Checkpoint& smoothed, const DecoderConfig& config,
                        const SmoothingFits& fits) {
  GroupChecker checker(base, smoothed, config, fits);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) checker.check_block(block);
  return checker.result;
}

}  // namespace salient::pipeline
