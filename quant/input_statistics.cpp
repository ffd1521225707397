#include "quant/input_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

namespace salient::quant {
namespace {
// Rows of the error matrix that are multiplied at a time: bounds the temporary to kRowChunk x features floats.
constexpr int64_t kRowChunk = 4096;
}  // namespace

InputStatistics make_input_statistics(int64_t features, at::Device device) {
  return {at::zeros({features, features}, at::TensorOptions(at::kFloat).device(device)),
          at::zeros({features}, at::TensorOptions(at::kDouble).device(device)), 0};
}

void accumulate(InputStatistics& statistics, const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(at::kFloat);
  statistics.gram.addmm_(rows.t(), rows);
  statistics.abs_sum.add_(rows.abs().sum(0, /*keepdim=*/false, at::kDouble));
  statistics.rows += rows.size(0);
}

at::Tensor mean_abs(const InputStatistics& statistics) {
  return (statistics.abs_sum / static_cast<double>(std::max<int64_t>(1, statistics.rows))).to(at::kFloat);
}

at::Tensor output_error_by_row(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows) {
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < weight_error.size(0); begin += kRowChunk) {
    const at::Tensor part = weight_error.narrow(0, begin, std::min(kRowChunk, weight_error.size(0) - begin));
    parts.push_back(at::mm(part, gram).mul_(part).sum(1));
  }
  return at::cat(parts).div_(static_cast<double>(std::max<int64_t>(1, rows)));
}

double output_error(const at::Tensor& weight_error, const at::Tensor& gram, int64_t rows) {
  return output_error_by_row(weight_error, gram, rows).sum(at::kDouble).item<double>();
}

}  // namespace salient::quant
