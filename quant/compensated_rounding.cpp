#include "quant/compensated_rounding.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "quant/clones.h"

namespace salient::quant {
namespace {

// Columns that are rounded before the rest is brought up to date by one matrix product.
constexpr int64_t kPanel = 128;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer

// Rounds the columns of one row in [0, columns) of a panel. target: what to round, brought up to date here; step, zero: of each column; codes, error: out.
SALIENT_CLONES void round_panel(float* target, const float* factor, int64_t factor_stride, const float* step, const float* zero, float levels,
                                int64_t columns, float* codes, float* error) {
  for (int64_t k = 0; k < columns; ++k) {
    float code = target[k] / step[k] + zero[k];
    code = code > 1e6f ? 1e6f : (code < -1e6f ? -1e6f : code);
    code = (code + kRound) - kRound;
    code = code < 0.0f ? 0.0f : (code > levels ? levels : code);
    codes[k] = code;
    error[k] = error[k] - (code - zero[k]) * step[k];
    const float e = error[k];
    const float* row = factor + k * factor_stride;
    for (int64_t j = k + 1; j < columns; ++j) target[j] += e * row[j];
  }
}

}  // namespace

CompensationFactor factorize_gram(const at::Tensor& gram, const RoundingOptions& options) {
  CompensationFactor result;
  at::Tensor diagonal = gram.diagonal().clone();
  at::Tensor h = gram;
  const double mean = diagonal.mean().item<double>();
  diagonal = at::where(diagonal > 0.0, diagonal, at::ones_like(diagonal) * (mean > 0 ? mean : 1.0));
  if (options.order == ColumnOrder::kActivation) {
    result.order = at::argsort(diagonal, /*stable=*/true, /*dim=*/0, /*descending=*/true);
    h = h.index_select(0, result.order).index_select(1, result.order);
    diagonal = diagonal.index_select(0, result.order);
  }
  // H = U D U^T with U upper is the Cholesky factorisation of the matrix with rows and columns reversed.
  h = h.flip({0, 1});  // a copy
  diagonal = diagonal.flip({0});
  for (double damping = options.damping; damping < 1e3; damping = std::max(damping * 10, 1e-4)) {
    h.diagonal().copy_(diagonal + damping * (mean > 0 ? mean : 1.0));
    const auto [lower, info] = at::linalg_cholesky_ex(h);
    if (info.item<int>() != 0) continue;
    const at::Tensor upper = lower.flip({0, 1});
    result.factor = (upper / upper.diagonal().unsqueeze(0)).contiguous();
    result.damping = damping;
    return result;
  }
  fail(ErrorKind::kInternal, "the Gram matrix of {} channels cannot be factorised", gram.size(0));
}

QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, const AffineOptions& options, const ClipRange* clip) {
  return round_compensated(weight, factor, quantize_affine(weight, options, clip), options.bits);
}

QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, QuantizedWeight start, int bits) {
  QuantizedWeight result{at::empty_like(start.codes), start.zeros, start.scales};
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t groups = start.scales.size(1);
  const int64_t group_size = columns / groups;
  const float levels = static_cast<float>((1 << bits) - 1);
  const at::Tensor float_zeros = start.zeros.to(at::kFloat).contiguous();
  const int64_t* order = factor.order.defined() ? factor.order.const_data_ptr<int64_t>() : nullptr;
  // In the order of rounding: what is rounded (brought up to date as columns are done), and the untouched weight, which becomes the error.
  at::Tensor target = factor.order.defined() ? weight.index_select(1, factor.order) : weight.clone();
  at::Tensor error = target.clone();
  const float* u = factor.factor.const_data_ptr<float>();
  const float* scales = result.scales.const_data_ptr<float>();
  const float* zeros = float_zeros.const_data_ptr<float>();
  auto* codes = result.codes.data_ptr<uint8_t>();
  auto* t = target.data_ptr<float>();
  auto* e = error.data_ptr<float>();
  for (int64_t begin = 0; begin < columns; begin += kPanel) {
    const int64_t count = std::min(kPanel, columns - begin);
    at::parallel_for(0, rows, std::max<int64_t>(1, 65536 / (count * kPanel)), [&](int64_t first, int64_t last) {
      std::vector<float> step(static_cast<size_t>(count));
      std::vector<float> zero(static_cast<size_t>(count));
      std::vector<float> found(static_cast<size_t>(count));
      for (int64_t row = first; row < last; ++row) {
        for (int64_t k = 0; k < count; ++k) {
          const int64_t column = order != nullptr ? order[begin + k] : begin + k;
          step[static_cast<size_t>(k)] = scales[row * groups + column / group_size];
          zero[static_cast<size_t>(k)] = zeros[row * groups + column / group_size];
        }
        round_panel(t + row * columns + begin, u + begin * columns + begin, columns, step.data(), zero.data(), levels, count, found.data(),
                    e + row * columns + begin);
        for (int64_t k = 0; k < count; ++k) {
          const int64_t column = order != nullptr ? order[begin + k] : begin + k;
          codes[row * columns + column] = static_cast<uint8_t>(found[static_cast<size_t>(k)]);
        }
      }
    });
    const int64_t rest = columns - begin - count;
    if (rest > 0) {
      target.narrow(1, begin + count, rest)
          .addmm_(error.narrow(1, begin, count), factor.factor.narrow(0, begin, count).narrow(1, begin + count, rest));
    }
  }
  return result;
}

}  // namespace salient::quant
