#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"

namespace salient::eval {
namespace {

void require_pairs(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) {
    fail(ErrorKind::kInvalidArgument, "paired statistics: {} scores on one side, {} on the other; pairs need the same documents",
         a.size(), b.size());
  }
}

template <typename Value>
double quantile_of(std::vector<Value>& values, double q) {
  if (values.empty()) fail(ErrorKind::kInvalidArgument, "the quantile of no values");
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto lower = static_cast<size_t>(position);
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(lower);
  std::nth_element(values.begin(), at, values.end());
  const double low = *at;
  const double fraction = position - static_cast<double>(lower);
  if (fraction == 0) return low;
  return low + fraction * (static_cast<double>(*std::min_element(at + 1, values.end())) - low);
}

}  // namespace

Estimate scaled(Estimate estimate, double factor) {
  estimate.value *= factor;
  if (estimate.stderr_of_mean) *estimate.stderr_of_mean *= factor;
  return estimate;
}

Interval scaled(Interval interval, double factor) { return {factor * interval.low, factor * interval.high}; }

Estimate mean(std::span<const double> values) {
  if (values.empty()) fail(ErrorKind::kInvalidArgument, "the mean of no values: at least one document is needed");
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double v : values) sum += v;
  Estimate out{sum / n, std::nullopt};
  if (values.size() > 1) {
    double squares = 0;
    for (const double v : values) squares += (v - out.value) * (v - out.value);
    out.stderr_of_mean = std::sqrt(squares / (n - 1) / n);
  }
  return out;
}

Estimate paired_difference(std::span<const double> a, std::span<const double> b) {
  require_pairs(a, b);
  std::vector<double> differences(a.size());
  for (size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  return mean(differences);
}

std::optional<Estimate> retention(std::span<const double> scores, std::span<const double> base) {
  require_pairs(scores, base);
  if (base.empty()) return std::nullopt;
  const double base_mean = mean(base).value;
  if (base_mean == 0) return std::nullopt;
  const double ratio = mean(scores).value / base_mean;
  std::vector<double> residuals(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) residuals[i] = scores[i] - ratio * base[i];
  Estimate out{ratio, mean(residuals).stderr_of_mean};
  if (out.stderr_of_mean) *out.stderr_of_mean /= std::abs(base_mean);
  return out;
}

std::optional<Estimate> retention_above_chance(std::span<const double> scores, std::span<const double> base, double chance) {
  require_pairs(scores, base);
  if (base.empty() || mean(base).value <= chance) return std::nullopt;
  std::vector<double> shifted(scores.begin(), scores.end());
  std::vector<double> shifted_base(base.begin(), base.end());
  for (double& v : shifted) v -= chance;
  for (double& v : shifted_base) v -= chance;
  return retention(shifted, shifted_base);
}

double quantile(std::vector<float>& values, double q) { return quantile_of(values, q); }
double quantile(std::vector<double>& values, double q) { return quantile_of(values, q); }

Interval wilson_interval(int64_t right, int64_t n) {
  if (n < 1 || right < 0 || right > n) fail(ErrorKind::kInvalidArgument, "the interval of a share: found {} of {}", right, n);
  const auto count = static_cast<double>(n);
  const double share = static_cast<double>(right) / count;
  const double square = kTwoSided95 * kTwoSided95;
  const double center = (share + square / (2 * count)) / (1 + square / count);
  const double half = kTwoSided95 / (1 + square / count) * std::sqrt(share * (1 - share) / count + square / (4 * count * count));
  return {right == 0 ? 0.0 : center - half, right == n ? 1.0 : center + half};
}

double normal_p_value(double value, double standard_error) {
  if (standard_error == 0) return value == 0 ? 1.0 : 0.0;
  return std::erfc(std::abs(value) / standard_error / std::sqrt(2.0));
}

std::vector<double> holm_adjusted(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(order.size() - rank) * p_values[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

}  // namespace salient::eval
