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

struct Candidate {
  std::string kind;
  double ratio;
};

std::vector<Candidate> make_candidates(const ScaleSearchOptions& search) {
  std::vector<Candidate> list{{"identity", 0.0}};
  if (search.duo != DuoScaling::kOn) {
    for (int i = 1; i <= search.grid; ++i) list.push_back({"plain", static_cast<double>(i) / search.grid});
  }
  if (search.duo != DuoScaling::kOff) {
    for (int i = 0; i <= search.grid; ++i) list.push_back({"duo", static_cast<double>(i) / search.grid});
  }
  return list;
}

// Mean of `values` over the channels that share a scale, spread back to every channel.
at::Tensor average_tied(const at::Tensor& values, const at::Tensor& tie) {
  if (!tie.defined()) return values;
  const int64_t tied = tie.max().item<int64_t>() + 1;
  at::Tensor sum = at::zeros({tied}, values.options()).index_add_(0, tie, values);
  at::Tensor count = at::zeros({tied}, values.options()).index_add_(0, tie, at::ones_like(values));
  return (sum / count).index_select(0, tie);
}

at::Tensor make_scales(const Candidate& candidate, const at::Tensor& x, const at::Tensor& w) {
  if (candidate.kind == "identity") return at::ones_like(x);
  at::Tensor s = x.pow(candidate.ratio);
  if (candidate.kind == "duo") s = s / (w.pow(1.0 - candidate.ratio) + kRatioEpsilon);
  s = s.clamp_min(kLeastScale);
  s = s / (s.max() * s.min()).sqrt();
  return at::where(at::isfinite(s), s, at::ones_like(s)).contiguous();
}

double total_error(const std::vector<at::Tensor>& weights, const at::Tensor& s, const InputStatistics& statistics,
                   const AffineOptions& options) {
  double total = 0;
  for (const at::Tensor& weight : weights) {
    total += output_error(quantization_error(weight, s, options), statistics.gram, statistics.rows);
  }
  return total;
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
  const int64_t columns = weights.front().size(1);
  at::Tensor sum = at::zeros({columns}, at::kDouble);
  int64_t rows = 0;
  for (const at::Tensor& weight : weights) {
    at::Tensor grouped = weight.abs().view({weight.size(0), columns / group_size, group_size});
    grouped = grouped / (grouped.amax(2, /*keepdim=*/true) + kWeightEpsilon);
    sum.add_(grouped.sum(0, /*keepdim=*/false, at::kDouble).view({columns}));
    rows += weight.size(0);
  }
  return (sum / static_cast<double>(rows)).to(at::kFloat);
}

ScaleSearchResult search_scales(const std::vector<at::Tensor>& weights, const InputStatistics& statistics, const AffineOptions& options,
                                const ScaleSearchOptions& search, const at::Tensor& tie) {
  const at::Tensor x = average_tied(mean_abs(statistics), tie);
  const at::Tensor w = average_tied(relative_weight_magnitude(weights, options.group_size), tie);
  ScaleSearchResult best;
  for (const Candidate& candidate : make_candidates(search)) {
    const at::Tensor s = make_scales(candidate, x, w);
    const double error = total_error(weights, s, statistics, options);
    if (candidate.kind == "identity") best.rtn_error = error;
    // A candidate that is not finite never wins; identity is first and always is.
    if (!best.scales.defined() || (std::isfinite(error) && error < best.best_error)) {
      best.scales = s;
      best.best_error = error;
      best.kind = candidate.kind;
      best.ratio = candidate.ratio;
    }
  }
  return best;
}

}  // namespace salient::quant
