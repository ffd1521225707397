#include "quant/scale_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "common/error.h"

namespace salient::quant {
namespace {

// The constants of AutoAWQ, so that its candidates are among ours.
constexpr double kWeightEpsilon = 1e-6;
constexpr double kRatioEpsilon = 1e-4;
constexpr double kLeastScale = 1e-4;

// Mean of `values` over the channels that share a scale, spread back to every channel.
at::Tensor average_tied(const at::Tensor& values, const at::Tensor& tie) {
  if (!tie.defined()) return values;
  const int64_t tied = tie.max().item<int64_t>() + 1;
  at::Tensor sum = at::zeros({tied}, values.options()).index_add_(0, tie, values);
  at::Tensor count = at::zeros({tied}, values.options()).index_add_(0, tie, at::ones_like(values));
  return (sum / count).index_select(0, tie);
}

at::Tensor candidate_scales(const std::string& kind, double ratio, const at::Tensor& x, const at::Tensor& w) {
  if (kind == "identity") return at::ones_like(x);
  at::Tensor s = x.pow(ratio);
  if (kind == "duo") s = s / (w.pow(1.0 - ratio) + kRatioEpsilon);
  s = s.clamp_min(kLeastScale);
  s = s / (s.max() * s.min()).sqrt();
  return at::where(at::isfinite(s), s, at::ones_like(s)).contiguous();
}

// Sum over the rows of |w| relative to the largest |w| of its group: float64 [in_features].
at::Tensor magnitude_sum(const at::Tensor& weight, int64_t group_size) {
  const int64_t columns = weight.size(1);
  at::Tensor grouped = weight.abs().view({weight.size(0), columns / group_size, group_size});
  grouped = grouped / (grouped.amax(2, /*keepdim=*/true) + kWeightEpsilon);
  return grouped.sum(0, /*keepdim=*/false, at::kDouble).view({columns});
}

}  // namespace

std::string_view to_string(DuoScaling duo) {
  switch (duo) {
    case DuoScaling::kOff: return "off";
    case DuoScaling::kOn: return "on";
    case DuoScaling::kBoth: return "both";
  }
  return "";
}

DuoScaling parse_duo_scaling(std::string_view name) {
  for (const DuoScaling duo : {DuoScaling::kOff, DuoScaling::kOn, DuoScaling::kBoth}) {
    if (to_string(duo) == name) return duo;
  }
  fail(ErrorKind::kInvalidArgument, "duo scaling '{}': expected off, on or both", name);
}

at::Tensor relative_weight_magnitude(const std::vector<at::Tensor>& weights, int64_t group_size) {
  at::Tensor sum = at::zeros({weights.front().size(1)}, at::kDouble);
  int64_t rows = 0;
  for (const at::Tensor& weight : weights) {
    sum.add_(magnitude_sum(weight, group_size));
    rows += weight.size(0);
  }
  return (sum / static_cast<double>(rows)).to(at::kFloat);
}

ScaleSearch::ScaleSearch(const InputStatistics& statistics, const AffineOptions& options, const ScaleSearchOptions& search,
                         at::Tensor tie)
    : statistics_(statistics), options_(options), tie_(std::move(tie)) {
  const auto ratio = [&](int step) { return static_cast<double>(step) / search.grid; };
  candidates_.push_back({"identity", 0.0, {}, 0.0});
  if (search.duo != DuoScaling::kOn) {
    for (int i = 1; i <= search.grid; ++i) candidates_.push_back({"plain", ratio(i), {}, 0.0});
  }
  if (search.duo != DuoScaling::kOff) {
    for (int i = 0; i <= search.grid; ++i) candidates_.push_back({"duo", ratio(i), {}, 0.0});
  }
}

void ScaleSearch::add_magnitude(const at::Tensor& weight) {
  const at::Tensor sum = magnitude_sum(weight, options_.group_size);
  magnitude_sum_ = magnitude_sum_.defined() ? magnitude_sum_.add_(sum) : sum;
  rows_ += weight.size(0);
}

void ScaleSearch::make_scales() {
  if (rows_ == 0) fail(ErrorKind::kInternal, "scale search: no weight was shown");
  const at::Tensor x = average_tied(mean_abs(statistics_), tie_);
  const at::Tensor w = average_tied((magnitude_sum_ / static_cast<double>(rows_)).to(at::kFloat), tie_);
  for (Candidate& candidate : candidates_) candidate.scales = candidate_scales(candidate.kind, candidate.ratio, x, w);
}

void ScaleSearch::add_error(const at::Tensor& weight) {
  if (!candidates_.front().scales.defined()) make_scales();
  for (Candidate& candidate : candidates_) {
    candidate.error += output_error(quantization_error(weight, candidate.scales, options_), statistics_.gram, statistics_.rows);
  }
}

ScaleSearchResult ScaleSearch::finish() const {
  const Candidate* best = &candidates_.front();
  // A candidate that is not finite never wins; identity is first and always is.
  for (const Candidate& candidate : candidates_) {
    if (std::isfinite(candidate.error) && candidate.error < best->error) best = &candidate;
  }
  return {best->scales, candidates_.front().error, best->error, best->kind, best->ratio};
}

ScaleSearchResult search_scales(const std::vector<at::Tensor>& weights, const InputStatistics& statistics,
                                const AffineOptions& options, const ScaleSearchOptions& search, const at::Tensor& tie) {
  ScaleSearch run(statistics, options, search, tie);
  for (const at::Tensor& weight : weights) run.add_magnitude(weight);
  for (const at::Tensor& weight : weights) run.add_error(weight);
  return run.finish();
}

}  // namespace salient::quant
