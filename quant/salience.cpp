#include "quant/salience.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "quant/fixed_parts.h"

namespace salient::quant {
namespace {

// Bounds the float64 temporary of the squares.
constexpr int64_t kSalienceRows = 1024;
constexpr int kFloatBits = 16;
constexpr double kGainOfABit = 0.75;
constexpr double kQuantiles[] = {0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0};

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor copy = values.to(at::kCPU, at::kDouble).contiguous();
  std::vector<double> result(copy.const_data_ptr<double>(), copy.const_data_ptr<double>() + copy.numel());
  for (double& value : result) value = std::isnan(value) ? 0.0 : value;
  return result;
}

std::vector<int64_t> descending_order(std::span<const double> values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
  return order;
}

at::Tensor first_of(const std::vector<int64_t>& order, int64_t count) {
  at::Tensor result = at::empty({count}, at::kLong);
  std::copy_n(order.begin(), count, result.data_ptr<int64_t>());
  return result;
}

void check_share(const char* name, double share) {
  if (!(share >= 0.0 && share <= 1.0))
    fail(ErrorKind::kInvalidArgument, "{} {}: expected a share of the channels, 0 to 1", name, share);
}

// 1 for the least; equal values share the mean of the ranks that they take up.
std::vector<double> ranks(std::span<const double> values) {
  const std::vector<int64_t> order = descending_order(values);
  std::vector<double> result(values.size());
  const auto value_at = [&](size_t i) { return values[static_cast<size_t>(order[i])]; };
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && value_at(end) == value_at(begin)) ++end;
    const double rank = static_cast<double>(order.size()) - static_cast<double>(begin + end - 1) / 2.0;
    for (size_t i = begin; i < end; ++i) result[static_cast<size_t>(order[i])] = rank;
    begin = end;
  }
  return result;
}

}  // namespace

at::Tensor largest_channels(const at::Tensor& values, int64_t count) {
  const std::vector<int64_t> order = descending_order(to_vector(values));
  return first_of(order, std::clamp<int64_t>(count, 0, static_cast<int64_t>(order.size())));
}

at::Tensor find_salient_channels(const at::Tensor& mean_abs, const at::Tensor& weight, double ratio) {
  check_share("salient ratio", ratio);
  const int64_t count = ratio > 0.0 ? std::max<int64_t>(1, std::llround(ratio * static_cast<double>(mean_abs.numel()))) : 0;
  if (!weight.defined()) return largest_channels(mean_abs, count);
  return largest_channels(mean_abs.to(at::kDouble) * sum_of_rows(weight.abs()), count);
}

at::Tensor channel_error_share(const at::Tensor& weight_error, const at::Tensor& gram) {
  at::Tensor squares = at::zeros({weight_error.size(1)}, weight_error.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < weight_error.size(0); begin += kSalienceRows) {
    const at::Tensor part = weight_error.narrow(0, begin, std::min(kSalienceRows, weight_error.size(0) - begin)).to(at::kDouble);
    squares.add_(sum_of_rows(part * part));
  }
  return squares.mul_(gram.diagonal().to(at::kDouble));
}

at::Tensor choose_salient_channels(const at::Tensor& channel_error, int bits, double max_ratio) {
  check_share("largest salient ratio", max_ratio);
  const std::vector<double> errors = to_vector(channel_error);
  const std::vector<int64_t> order = descending_order(errors);
  const auto most = static_cast<int64_t>(max_ratio * static_cast<double>(errors.size()) + 1e-9);
  const double price = kGainOfABit * (kFloatBits - bits);
  double left = std::accumulate(errors.begin(), errors.end(), 0.0);
  int64_t count = 0;
  while (count < most) {
    const double error = errors[static_cast<size_t>(order[static_cast<size_t>(count)])];
    left -= error;
    const auto others = static_cast<double>(static_cast<int64_t>(errors.size()) - count - 1);
    if (!(error > 0.0 && error * others > price * left)) break;
    ++count;
  }
  return first_of(order, count);
}

std::vector<double> salience_quantiles(const at::Tensor& values) {
  std::vector<double> sorted = to_vector(values);
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> result;
  for (const double quantile : kQuantiles) {
    if (sorted.empty()) {
      result.push_back(0.0);
      continue;
    }
    const double position = quantile * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(position);
    const double above = sorted[std::min(below + 1, sorted.size() - 1)];
    const double fraction = position - static_cast<double>(below);
    result.push_back(fraction > 0.0 ? sorted[below] + fraction * (above - sorted[below]) : sorted[below]);
  }
  return result;
}

double salience_top_share(const at::Tensor& values, double share) {
  const std::vector<double> all = to_vector(values);
  const std::vector<int64_t> order = descending_order(all);
  const double sum = std::accumulate(all.begin(), all.end(), 0.0);
  if (!(sum > 0.0)) return 0.0;
  const auto wanted = static_cast<size_t>(std::llround(share * static_cast<double>(all.size())));
  double top = 0.0;
  for (size_t i = 0; i < std::clamp<size_t>(wanted, 1, all.size()); ++i) top += all[static_cast<size_t>(order[i])];
  return std::isfinite(sum) ? top / sum : 1.0;
}

std::optional<double> rank_correlation(const at::Tensor& a, const at::Tensor& b) {
  const std::vector<double> x = to_vector(a);
  const std::vector<double> y = to_vector(b);
  return rank_correlation(std::span(x), std::span(y));
}

std::optional<double> rank_correlation(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) fail(ErrorKind::kInternal, "rank correlation of {} and {} values", a.size(), b.size());
  const std::vector<double> x = ranks(a);
  const std::vector<double> y = ranks(b);
  const double mean = (static_cast<double>(x.size()) + 1.0) / 2.0;
  double xx = 0.0;
  double yy = 0.0;
  double xy = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
    xy += (x[i] - mean) * (y[i] - mean);
  }
  if (!(xx > 0.0 && yy > 0.0)) return std::nullopt;
  return std::clamp(xy / std::sqrt(xx * yy), -1.0, 1.0);
}

}  // namespace salient::quant
