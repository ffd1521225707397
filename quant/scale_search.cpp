#include "quant/scale_search.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "common/cancellation.h"
#include "common/error.h"
#include "quant/fixed_parts.h"

namespace salient::quant {
namespace {

// The constants of AutoAWQ, so that its candidates are among ours.
constexpr double kWeightEpsilon = 1e-6;
constexpr double kRatioEpsilon = 1e-4;
constexpr double kLeastScale = 1e-4;
// Rows that candidates are compared on first, of weights with at least twice as many; how many of them, besides identity, are then
// compared on more rows, and on how many.
constexpr int64_t kSampleRows = 64;
constexpr size_t kFinalists = 4;
constexpr int64_t kShortlistRows = 256;
constexpr int64_t kProductRows = 2048;  // of the errors of several candidates that are multiplied at a time

// Mean of `values` over the channels that share a scale, spread back to every channel.
at::Tensor average_tied(const at::Tensor& values, const at::Tensor& shared) {
  if (!shared.defined()) return values;
  // A device adds in whatever order its threads come by, with other last bits each time; these are a few thousand numbers.
  if (!values.is_cpu()) return average_tied(values.cpu(), shared).to(values.device());
  const at::Tensor tie = shared.to(values.device());
  const int64_t tied = tie.max().item<int64_t>() + 1;
  at::Tensor sum = at::zeros({tied}, values.options()).index_add_(0, tie, values);
  at::Tensor count = at::zeros({tied}, values.options()).index_add_(0, tie, at::ones_like(values));
  return (sum / count).index_select(0, tie);
}

at::Tensor candidate_scales(const std::string& kind, double ratio, const at::Tensor& x, const at::Tensor& w) {
  if (kind == "identity") return at::ones_like(x);
  const auto power = [](const at::Tensor& base, double exponent) {
    return elementwise(base, [&](const at::Tensor& part) { return part.pow(exponent); });
  };
  at::Tensor s = power(x, ratio);
  if (kind == "duo") s = s / (power(w, 1.0 - ratio) + kRatioEpsilon);
  s = s.clamp_min(kLeastScale);
  // Channels that nothing feeds and nothing reads, such as those of padding, have no say in the others' scales.
  const at::Tensor absent = (x == 0).logical_and(w == 0);
  const at::Tensor counted = absent.any().item<bool>() ? s.masked_select(absent.logical_not()) : s;
  if (counted.numel() == 0) return at::ones_like(x);
  s = (s / (counted.max() * counted.min()).sqrt()).masked_fill(absent, 1.0);
  return at::where(at::isfinite(s), s, at::ones_like(s)).contiguous();
}

at::Tensor sample_rows(const at::Tensor& weight, int64_t rows) {
  const int64_t step = weight.size(0) / rows;
  return step < 2 ? weight : weight.slice(0, 0, step * rows, step).contiguous();
}

// What each of `scales` leaves of `weight`. Several candidates share a product with the Gram matrix: small products cost more in
// getting started than in work. `most_rows`: of a product.
std::vector<double> candidate_errors(const at::Tensor& weight, const std::vector<at::Tensor>& scales,
                                     const InputStatistics& statistics, const AffineOptions& options, int64_t most_rows) {
  std::vector<double> errors(scales.size(), 0.0);
  const int64_t slice = std::min(most_rows, weight.size(0));
  const auto together = static_cast<size_t>(std::max<int64_t>(1, std::min(most_rows, kProductRows) / slice));
  for (int64_t begin = 0; begin < weight.size(0); begin += slice) {
    check_cancelled();
    const at::Tensor part = weight.narrow(0, begin, std::min(slice, weight.size(0) - begin));
    for (size_t first = 0; first < scales.size(); first += together) {
      const auto count = static_cast<int64_t>(std::min(together, scales.size() - first));
      const at::Tensor left = at::empty({count, part.size(0), part.size(1)}, weight.options());
      for (int64_t i = 0; i < count; ++i)
        write_quantization_error(part, scales[first + static_cast<size_t>(i)], options, nullptr, left[i]);
      const at::Tensor sums = output_error_by_row(left.flatten(0, 1), statistics.gram, statistics.rows)
                                  .view({count, -1})
                                  .sum(1, /*keepdim=*/false, at::kDouble)
                                  .cpu();
      for (int64_t i = 0; i < count; ++i) errors[first + static_cast<size_t>(i)] += sums.const_data_ptr<double>()[i];
    }
  }
  return errors;
}

// Sum over the rows of |w| relative to the largest |w| of its group: float64 [in_features].
at::Tensor magnitude_sum(const at::Tensor& weight, int64_t group_size) {
  const int64_t columns = weight.size(1);
  at::Tensor grouped = weight.abs().view({weight.size(0), columns / group_size, group_size});
  grouped = grouped / (grouped.amax(2, /*keepdim=*/true) + kWeightEpsilon);
  return sum_of_rows(grouped.view({-1, columns}));
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
  at::Tensor sum = at::zeros({weights.front().size(1)}, weights.front().options().dtype(at::kDouble));
  int64_t rows = 0;
  for (const at::Tensor& weight : weights) {
    sum.add_(magnitude_sum(weight, group_size));
    rows += weight.size(0);
  }
  return (sum / static_cast<double>(rows)).to(at::kFloat);
}

ScaleSearch::ScaleSearch(const InputStatistics& statistics, const ScaleSearchOptions& search, at::Tensor tie)
    : statistics_(statistics), options_(search), tie_(std::move(tie)) {
  const auto ratio = [&](int step) { return static_cast<double>(step) / search.grid; };
  candidates_.push_back({"identity", 0.0, {}, 0.0, false});
  if (search.duo != DuoScaling::kOn) {
    for (int i = 1; i <= search.grid; ++i) candidates_.push_back({"plain", ratio(i), {}, 0.0, false});
  }
  if (search.duo != DuoScaling::kOff) {
    for (int i = 0; i <= search.grid; ++i) candidates_.push_back({"duo", ratio(i), {}, 0.0, false});
  }
}

void ScaleSearch::add_magnitude(const at::Tensor& weight, int64_t group_size) {
  const at::Tensor sum = magnitude_sum(weight, group_size);
  magnitude_sum_ = magnitude_sum_.defined() ? magnitude_sum_.add_(sum) : sum;
  rows_ += weight.size(0);
}

void ScaleSearch::make_scales() {
  if (rows_ == 0) fail(ErrorKind::kInternal, "scale search: no weight was shown");
  const at::Tensor x = average_tied(mean_abs(statistics_), tie_);
  const at::Tensor w = average_tied((magnitude_sum_ / static_cast<double>(rows_)).to(at::kFloat), tie_);
  for (Candidate& candidate : candidates_) {
    if (!candidate.scales.defined()) candidate.scales = candidate_scales(candidate.kind, candidate.ratio, x, w);
  }
}

void ScaleSearch::add_error(const at::Tensor& weight, const AffineOptions& options, bool none_worse,
                            std::optional<double> identity_error) {
  make_scales();
  const at::Tensor measured = rows_of_stage(weight);
  const bool whole = measured.size(0) == weight.size(0);
  sampled_ |= !whole;
  const double share = static_cast<double>(measured.size(0)) / static_cast<double>(weight.size(0));
  // Identity comes first, whether it is being measured or only compared with.
  const bool compare = none_worse || first_ == 0;
  const bool known = whole && identity_error.has_value();
  std::vector<at::Tensor> scales;
  if (compare && !known) scales.push_back(candidates_.front().scales);
  for (size_t i = std::max<size_t>(1, first_); i < candidates_.size(); ++i) scales.push_back(candidates_[i].scales);
  std::vector<double> errors =
      candidate_errors(measured, scales, statistics_, options, rows_in_memory(options_.max_chunk_memory, weight.size(1)));
  for (double& error : errors) error /= share;
  if (compare && known) errors.insert(errors.begin(), *identity_error);
  const double identity = compare ? errors.front() : 0.0;
  if (first_ == 0) candidates_.front().error += identity;
  for (size_t i = std::max<size_t>(1, first_), at = compare ? 1 : 0; i < candidates_.size(); ++i, ++at) {
    candidates_[i].error += errors[at];
    candidates_[i].refused |= none_worse && errors[at] > identity;
  }
}

void ScaleSearch::add_error(const std::function<double(const at::Tensor& scales)>& error) {
  make_scales();
  for (size_t i = first_; i < candidates_.size(); ++i) candidates_[i].error += error(candidates_[i].scales);
}

const ScaleSearch::Candidate& ScaleSearch::best() const {
  const Candidate* best = &candidates_.front();
  // A candidate that is not finite never wins; identity is first and always is.
  for (const Candidate& candidate : candidates_) {
    if (!candidate.refused && std::isfinite(candidate.error) && candidate.error < best->error) best = &candidate;
  }
  return *best;
}

at::Tensor ScaleSearch::rows_of_stage(const at::Tensor& weight) const {
  if (stage_ == Stage::kFinal) return weight;
  return sample_rows(weight, stage_ == Stage::kShortlist ? kShortlistRows : kSampleRows);
}

// All but identity that can still win, the best first.
std::vector<ScaleSearch::Candidate> ScaleSearch::in_order() const {
  std::vector<Candidate> order;
  std::copy_if(candidates_.begin() + 1, candidates_.end(), std::back_inserter(order),
               [](const Candidate& candidate) { return !candidate.refused && std::isfinite(candidate.error); });
  std::stable_sort(order.begin(), order.end(), [](const Candidate& a, const Candidate& b) { return a.error < b.error; });
  return order;
}

// Of those that wait, the first, if there is one.
std::vector<ScaleSearch::Candidate> ScaleSearch::take_next() {
  if (waiting_.empty()) return {};
  std::vector<Candidate> next{std::move(waiting_.front())};
  waiting_.erase(waiting_.begin());
  return next;
}

// False when there is nothing around it.
bool ScaleSearch::add_around(const Candidate& found) {
  if (found.kind == "identity") return false;
  first_ = candidates_.size();
  for (const double step : {-2.0 / 3, -1.0 / 3, 1.0 / 3, 2.0 / 3}) {
    const double ratio = found.ratio + step / options_.grid;
    if (ratio >= 0.0 && ratio <= 1.0) candidates_.push_back({found.kind, ratio, {}, 0.0, false});
  }
  return true;
}

bool ScaleSearch::refine() {
  if (stage_ == Stage::kGrid && options_.refine && add_around(Candidate(best()))) {
    stage_ = Stage::kAround;
    return true;
  }
  if (!sampled_) return false;
  std::vector<Candidate> order = in_order();
  first_ = 0;
  switch (stage_) {
    case Stage::kGrid:
    case Stage::kAround:
      stage_ = Stage::kShortlist;
      sampled_ = false;
      order.resize(std::min(order.size(), kFinalists));
      break;
    case Stage::kShortlist:
      stage_ = Stage::kFinal;
      waiting_ = std::move(order);
      order = take_next();
      break;
    case Stage::kFinal:
      if (waiting_.empty() || best().kind != "identity") return false;
      first_ = 1;  // identity was measured with the first of them
      order = take_next();
      break;
  }
  candidates_.resize(1);
  candidates_.insert(candidates_.end(), order.begin(), order.end());
  for (size_t i = first_; i < candidates_.size(); ++i) candidates_[i].error = 0;
  return true;
}

ScaleSearchResult ScaleSearch::finish() const {
  const Candidate& found = best();
  return {found.scales.cpu(), candidates_.front().error, found.error, found.kind, found.ratio};
}

std::vector<ScaleSearchResult> ScaleSearch::finalists(size_t count) const {
  std::vector<Candidate> order = in_order();
  order.insert(order.end(), waiting_.begin(), waiting_.end());
  order.resize(std::min(order.size(), count));
  order.insert(order.begin(), candidates_.front());
  std::vector<ScaleSearchResult> results;
  for (const Candidate& one : order)
    results.push_back({one.scales.cpu(), candidates_.front().error, one.error, one.kind, one.ratio});
  return results;
}

ScaleSearchResult search_scales(const std::vector<at::Tensor>& weights, const InputStatistics& statistics,
                                const AffineOptions& options, const ScaleSearchOptions& search, const at::Tensor& tie) {
  ScaleSearch run(statistics, search, tie);
  for (const at::Tensor& weight : weights) run.add_magnitude(weight, options.group_size);
  do {
    for (const at::Tensor& weight : weights) run.add_error(weight, options);
  } while (run.refine());
  return run.finish();
}

}  // namespace salient::quant
