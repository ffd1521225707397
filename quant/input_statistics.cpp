#include "quant/input_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "quant/fixed_parts.h"
#include "quant/fixed_product.h"
#include "quant/kernels/quadratic_form.h"
#include "quant/vector_loops.h"

namespace salient::quant {
namespace {
// Columns whose sums of magnitudes one thread adds up at a time.
constexpr int64_t kStretch = 128;

// Sum of |x| over the rows: float64 [features].
at::Tensor magnitude_sum(const at::Tensor& rows) {
  if (!rows.is_cpu() || !rows.is_contiguous()) return rows.abs().sum(0, /*keepdim=*/false, at::kDouble);
  const int64_t features = rows.size(1);
  at::Tensor sum = at::zeros({features}, at::kDouble);
  double* to = sum.data_ptr<double>();
  const float* from = rows.const_data_ptr<float>();
  in_fixed_parts(features, kStretch, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows.size(0); ++row) add_magnitudes(to + begin, from + row * features + begin, end - begin);
  });
  return sum;
}

// What is added to a Gram matrix.
struct CountedRows {
  at::Tensor rows;
  RowPieces pieces;
};

// Those of `rows` without NaN and infinite values, and how many are left in each piece.
CountedRows finite_rows(const at::Tensor& rows, const RowPieces& pieces) {
  const at::Tensor finite = at::isfinite(rows).all(1).cpu();
  RowPieces left;
  int64_t begin = 0;
  for (const int64_t count : pieces) {
    left.push_back(finite.narrow(0, begin, count).sum().item<int64_t>());
    begin += count;
  }
  return {rows.index_select(0, at::nonzero(finite).flatten().to(rows.device())), std::move(left)};
}

RowPieces pieces_of(const at::Tensor& rows, const RowPieces& given) { return given.empty() ? RowPieces{rows.size(0)} : given; }

// Returns how many rows were counted.
int64_t add_rows(InputStatistics& statistics, at::Tensor& gram, const at::Tensor& x, const RowPieces& pieces) {
  CountedRows counted{x.reshape({-1, x.size(-1)}).to(at::kFloat), {}};
  counted.pieces = pieces_of(counted.rows, pieces);
  at::Tensor sum = magnitude_sum(counted.rows);
  if (!at::isfinite(sum).all().item<bool>()) {
    const int64_t all = counted.rows.size(0);
    counted = finite_rows(counted.rows, counted.pieces);
    statistics.skipped_rows += all - counted.rows.size(0);
    sum = magnitude_sum(counted.rows);
  }
  add_upper_gram(gram, counted.rows, counted.pieces);
  statistics.abs_sum.add_(sum);
  statistics.rows += counted.rows.size(0);
  return counted.rows.size(0);
}

}  // namespace

InputStatistics make_input_statistics(int64_t features, at::Device device) {
  return {at::zeros({features, features}, at::TensorOptions(at::kFloat).device(device)),
          at::zeros({features}, at::TensorOptions(at::kDouble).device(device)),
          0,
          0,
          {},
          0,
          {}};
}

void accumulate(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces) {
  add_rows(statistics, statistics.gram, x, pieces);
}

void accumulate_held_back(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces) {
  if (!statistics.held_gram.defined()) statistics.held_gram = at::zeros_like(statistics.gram);
  statistics.held_rows += add_rows(statistics, statistics.held_gram, x, pieces);
}

void accumulate_curve(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces) {
  std::vector<CurvePoint>& curve = statistics.curve;
  if (curve.empty()) {
    curve.push_back({0, at::zeros_like(statistics.gram)});
  } else if (curve.back().blocks > 0) {
    curve.push_back({0, curve.back().gram.clone()});
  }
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(at::kFloat);
  const CountedRows counted = finite_rows(rows, pieces_of(rows, pieces));
  add_upper_gram(curve.back().gram, counted.rows, counted.pieces);
}

void end_curve_point(InputStatistics& statistics, int64_t blocks) { statistics.curve.back().blocks = blocks; }

void finish(InputStatistics& statistics) {
  mirror_upper(statistics.gram);
  for (CurvePoint& point : statistics.curve) {
    if (point.gram.defined()) mirror_upper(point.gram);
  }
  if (!statistics.held_gram.defined()) return;
  mirror_upper(statistics.held_gram);
  statistics.gram.add_(statistics.held_gram);
}

InputStatistics to_device(InputStatistics statistics, at::Device device) {
  const auto move = [device](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(device);
  };
  for (at::Tensor* tensor : {&statistics.gram, &statistics.abs_sum, &statistics.held_gram}) move(*tensor);
  for (CurvePoint& point : statistics.curve) move(point.gram);
  return statistics;
}

InputStatistics clone(const InputStatistics& statistics) {
  const auto copy = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; };
  InputStatistics result = statistics;
  for (at::Tensor* tensor : {&result.gram, &result.abs_sum, &result.held_gram}) *tensor = copy(*tensor);
  for (CurvePoint& point : result.curve) point.gram = copy(point.gram);
  return result;
}

at::Tensor mean_abs(const InputStatistics& statistics) {
  return (statistics.abs_sum / static_cast<double>(std::max<int64_t>(1, statistics.rows))).to(at::kFloat);
}

at::Tensor output_error_by_row(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows) {
  const at::Tensor errors = weight_error.is_cpu() && weight_error.scalar_type() == at::kFloat
                                ? quadratic_forms(weight_error, gram)
                                : at::mm(weight_error, gram).mul_(weight_error).sum(1);
  return errors.div_(static_cast<double>(std::max<int64_t>(1, rows)));
}

double output_error(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows) {
  return total(output_error_by_row(weight_error, gram, rows));
}

}  // namespace salient::quant
