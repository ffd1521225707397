// How one tensor became another of the same shape: by how much, and whether by a scaling of rows and columns.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace salient::pipeline {

struct ChangeSizes {
  bool identical = false;  // bit by bit
  double mean_absolute = 0;
  double max_absolute = 0;
  double mean_relative = 0;  // sum |change| / sum |old|
  double max_relative = 0;   // of one element that was not 0
  bool finite = true;        // false: NaN or infinity in either
};

// Any two tensors of one shape, views of mapped files; elements are converted a part at a time. Integers count as numbers.
ChangeSizes change_sizes(const at::Tensor& old_values, const at::Tensor& new_values);

// The fit W' = diag(rows) W diag(columns) of one matrix, by the means of log(W' / W) over rows and columns, in which every element
// counts the same.
struct ScalingFit {
  std::vector<double>
      log_rows;  // natural logarithms; NaN for a row without an element that counts, one that is not 0 and kept its sign
  std::vector<double> log_columns;
  // Whether rows (columns) were multiplied at all: their logarithms differ by more than rounding. A common factor of all rows is
  // counted to the columns.
  bool rows_moved = false;
  bool columns_moved = false;
  double residual = 0;  // sqrt(sum (W' - fit)^2 / sum W'^2) of a row, mean over rows
};

// `noise`: relative size of the rounding of W'.
ScalingFit fit_scaling(const at::Tensor& old_matrix, const at::Tensor& new_matrix, double noise);

}  // namespace salient::pipeline
