// What calibration keeps of a linear's input: enough to evaluate the output error of any change of the weight, exactly and without
// tokens.
//
// For X [rows, features] and a weight change D [out, features], sum ||X D^T||^2 = tr(D G D^T) with the Gram matrix G = X^T X.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace salient::quant {

// The Gram matrix of the first rows alone, those of `blocks` blocks of calibration tokens; undefined = of all that were not held
// back.
struct CurvePoint {
  int64_t blocks = 0;
  at::Tensor gram;
};

struct InputStatistics {
  at::Tensor gram;     // float32 [features, features], sum over rows of x x^T
  at::Tensor abs_sum;  // float64 [features], sum over rows of |x|
  int64_t rows = 0;
  int64_t skipped_rows = 0;  // with NaN or infinite values: not counted in anything
  // The Gram matrix of those of the rows that were held back, for choices that the other rows would make too boldly; undefined when
  // none were.
  at::Tensor held_gram;
  int64_t held_rows = 0;
  std::vector<CurvePoint> curve = {};  // of growing parts of the rows that were not held back, where asked for
};

InputStatistics make_input_statistics(int64_t features, at::Device device);

// How many rows each piece of a call has, 0 for one without any; empty = one piece of all rows. Gram matrices are added up piece by
// piece: the same pieces give the same bits, however many of them come in one call, and for every number of threads.
using RowPieces = std::vector<int64_t>;

// x: float32 [rows, features] (any number of leading dimensions). Rows with a value that is not finite are skipped. Only the upper
// half of a Gram matrix is kept up to date, and rows that are held back are not in `gram` yet: call finish() after the last one.
// Call order: (accumulate | accumulate_held_back)* finish.
void accumulate(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces = {});
void accumulate_held_back(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces = {});
void finish(InputStatistics& statistics);
// Adds x to the Gram matrix of the next point of the curve, which holds all points' rows before it; nothing else changes.
void accumulate_curve(InputStatistics& statistics, const at::Tensor& x, const RowPieces& pieces = {});
// Ends that point.
void end_curve_point(InputStatistics& statistics, int64_t blocks);

// With all tensors on `device`; those that lie there already are shared.
InputStatistics to_device(InputStatistics statistics, at::Device device);

// Tensors of their own, so that both can be added to.
InputStatistics clone(const InputStatistics& statistics);

// mean |x| of each feature, float32 [features].
at::Tensor mean_abs(const InputStatistics& statistics);

// tr(D G D^T) / rows, summed over the rows of D in float64. D: float32 [out, features]; G symmetric.
double output_error(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows);
// The same for each row of D: float32 [out].
at::Tensor output_error_by_row(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows);

}  // namespace salient::quant
