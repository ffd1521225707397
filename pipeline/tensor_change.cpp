#include "pipeline/tensor_change.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

namespace salient::pipeline {
namespace {

constexpr int64_t kPartElements = int64_t{1} << 22;

// Both as float64 matrices, some rows at a time.
void for_each_part(const at::Tensor& a, const at::Tensor& b,
                   const std::function<void(int64_t begin, const at::Tensor& a, const at::Tensor& b)>& work) {
  const int64_t rows = a.size(0);
  const int64_t at_once = std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, a.numel() / std::max<int64_t>(1, rows)));
  for (int64_t begin = 0; begin < rows; begin += at_once) {
    const int64_t count = std::min(at_once, rows - begin);
    work(begin, a.narrow(0, begin, count).to(at::kDouble), b.narrow(0, begin, count).to(at::kDouble));
  }
}

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor host = values.to(at::kDouble).contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

// Of the logarithms around their mean.
bool differ(const std::vector<double>& logs, const std::vector<double>& counts, double noise) {
  double sum = 0;
  double squares = 0;
  double n = 0;
  for (size_t i = 0; i < logs.size(); ++i) {
    if (counts[i] == 0) continue;
    sum += logs[i];
    squares += logs[i] * logs[i];
    ++n;
  }
  if (n < 2) return false;
  const double mean = sum / n;
  return std::sqrt(std::max(0.0, squares / n - mean * mean)) > noise;
}

}  // namespace

ChangeSizes change_sizes(const at::Tensor& old_values, const at::Tensor& new_values) {
  ChangeSizes sizes;
  if (old_values.dtype() == new_values.dtype() && old_values.is_contiguous() && new_values.is_contiguous() &&
      std::memcmp(old_values.const_data_ptr(), new_values.const_data_ptr(), old_values.nbytes()) == 0) {
    sizes.identical = true;
    return sizes;
  }
  double change = 0;
  double size = 0;
  const at::Tensor a = old_values.reshape({-1, 1});
  for_each_part(a, new_values.reshape({-1, 1}), [&](int64_t, const at::Tensor& before, const at::Tensor& after) {
    const at::Tensor difference = (after - before).abs_();
    const at::Tensor magnitude = before.abs();
    change += difference.sum().item<double>();
    size += magnitude.sum().item<double>();
    sizes.max_absolute = std::max(sizes.max_absolute, difference.max().item<double>());
    sizes.max_relative = std::max(sizes.max_relative, at::where(magnitude > 0, difference / magnitude, 0.0).max().item<double>());
  });
  sizes.finite = std::isfinite(change) && std::isfinite(size);
  sizes.mean_absolute = change / static_cast<double>(std::max<int64_t>(1, a.numel()));
  sizes.mean_relative = size > 0 ? change / size : 0.0;
  return sizes;
}

ScalingFit fit_scaling(const at::Tensor& old_matrix, const at::Tensor& new_matrix, double noise) {
  const int64_t rows = old_matrix.size(0);
  const int64_t columns = old_matrix.size(1);
  at::Tensor log_rows = at::zeros({rows, 1}, at::kDouble);
  at::Tensor log_columns = at::zeros({1, columns}, at::kDouble);
  at::Tensor row_counts = at::zeros({rows, 1}, at::kDouble);
  at::Tensor column_counts = at::zeros({1, columns}, at::kDouble);
  // Least squares in two directions in turn; without missing elements the first round is the solution.
  for (int round = 0; round < 3; ++round) {
    at::Tensor column_sums = at::zeros({1, columns}, at::kDouble);
    column_counts.zero_();
    for_each_part(old_matrix, new_matrix, [&](int64_t begin, const at::Tensor& before, const at::Tensor& after) {
      const at::Tensor counts = (before * after > 0).to(at::kDouble);  // zeros say nothing, and a scaling turns no sign
      const at::Tensor logs = at::where(counts > 0, (after / before).log(), 0.0);
      at::Tensor part = log_rows.narrow(0, begin, before.size(0));
      at::Tensor part_counts = row_counts.narrow(0, begin, before.size(0));
      part_counts.copy_(counts.sum(1, /*keepdim=*/true));
      part.copy_(((logs - log_columns) * counts).sum(1, true) / part_counts.clamp_min(1));
      column_sums += ((logs - part) * counts).sum(0, true);
      column_counts += counts.sum(0, true);
    });
    log_columns = column_sums / column_counts.clamp_min(1);
    if (row_counts.min().item<double>() == static_cast<double>(columns)) break;
  }
  ScalingFit fit;
  const std::vector<double> counts_of_rows = to_vector(row_counts);
  const std::vector<double> counts_of_columns = to_vector(column_counts);
  fit.rows_moved = differ(to_vector(log_rows), counts_of_rows, noise);
  fit.columns_moved = differ(to_vector(log_columns), counts_of_columns, noise);
  if (!fit.rows_moved) {  // the common factor belongs to the columns
    const double total = std::max(1.0, (row_counts > 0).sum().item<double>());
    const at::Tensor common = log_rows.sum() / total;
    log_rows = log_rows - common;
    log_columns = log_columns + common;
  } else if (!fit.columns_moved) {
    const double total = std::max(1.0, (column_counts > 0).sum().item<double>());
    const at::Tensor common = log_columns.sum() / total;
    log_rows = log_rows + common;
    log_columns = log_columns - common;
  }
  double residual = 0;
  for_each_part(old_matrix, new_matrix, [&](int64_t begin, const at::Tensor& before, const at::Tensor& after) {
    const at::Tensor fitted = before * (log_rows.narrow(0, begin, before.size(0)) + log_columns).exp();
    const at::Tensor left = (after - fitted).square().sum(1);
    const at::Tensor size = after.square().sum(1);
    residual += at::where(size > 0, (left / size).sqrt(), left.gt(0).to(at::kDouble)).sum().item<double>();
  });
  fit.residual = residual / static_cast<double>(std::max<int64_t>(1, rows));
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  fit.log_rows = to_vector(at::where(row_counts > 0, log_rows, unknown));
  fit.log_columns = to_vector(at::where(column_counts > 0, log_columns, unknown));
  return fit;
}

}  // namespace salient::pipeline
