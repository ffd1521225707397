#include "quant/compensated_rounding.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/cancellation.h"
#include "common/error.h"
#include "quant/cholesky.h"
#include "quant/clones.h"
#include "quant/fixed_parts.h"
#include "quant/fixed_product.h"

namespace salient::quant {
namespace {

// Columns that are rounded before the rest is brought up to date by one matrix product.
constexpr int64_t kPanel = 128;
constexpr int64_t kLine = 16;           // floats of a line of cache
constexpr int64_t kReflectedRows = 64;  // whose pages the processor keeps the addresses of
constexpr float kRound = 12582912.0f;   // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer

// Rounds the columns of one row in [0, columns) of a panel. target: what to round, brought up to date here; step, zero: of each
// column; codes, error: out.
SALIENT_CLONES void round_panel(float* target, const float* factor, int64_t factor_stride, const float* step, const float* zero,
                                float levels, int64_t columns, float* codes, float* error) {
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

// Of parts that get shorter and shorter, the first, the last, the second and so on: every thread gets as much to do.
int64_t short_and_long(int64_t at, int64_t parts) { return at % 2 == 0 ? at / 2 : parts - 1 - at / 2; }

// to[j, i] = gram[order[n-1-i], order[n-1-j]] for i >= j: what is left of the diagonal is not written. order: undefined = as they
// lie.
void gather_reversed(const at::Tensor& gram, const at::Tensor& order, const at::Tensor& to) {
  const int64_t n = gram.size(0);
  if (!gram.is_cpu()) {  // whole: its upper half is what is asked for
    const at::Tensor ordered = order.defined() ? gram.index_select(0, order).index_select(1, order) : gram;
    to.copy_(ordered.flip({0, 1}).t());
    return;
  }
  std::vector<int64_t> place(static_cast<size_t>(n));  // of the reversed order
  for (int64_t i = 0; i < n; ++i)
    place[static_cast<size_t>(i)] = order.defined() ? order.const_data_ptr<int64_t>()[n - 1 - i] : n - 1 - i;
  const float* from = gram.const_data_ptr<float>();
  auto* out = to.data_ptr<float>();
  // A line of cache of the result's columns at a time: rows are read one by one, and what of them is wanted is written as whole
  // lines.
  const int64_t lines = (n + kLine - 1) / kLine;
  at::parallel_for(0, lines, 1, [&](int64_t first, int64_t last) {
    std::vector<float> rows(static_cast<size_t>(kLine * n));
    for (int64_t at = first; at < last; ++at) {
      const int64_t begin = short_and_long(at, lines) * kLine;
      const int64_t end = std::min(n, begin + kLine);
      for (int64_t i = begin; i < end; ++i) {
        const float* row = from + place[static_cast<size_t>(i)] * n;
        float* wanted = rows.data() + (i - begin) * n;
        for (int64_t j = 0; j <= i; ++j) wanted[j] = row[place[static_cast<size_t>(j)]];
      }
      for (int64_t j = 0; j < end; ++j) {
        for (int64_t i = std::max(begin, j); i < end; ++i) out[j * n + i] = rows[static_cast<size_t>((i - begin) * n + j)];
      }
    }
  });
}

// Of an upper triangular matrix, entry (a, b) becomes what entry (n-1-b, n-1-a) was: rows and columns of its transpose reversed.
void reflect_upper(const at::Tensor& matrix) {
  const int64_t n = matrix.size(0);
  if (!matrix.is_cpu()) {
    matrix.copy_(matrix.flip({0, 1}).t());
    return;
  }
  auto* data = matrix.data_ptr<float>();
  const int64_t strips = (n / 2 + kReflectedRows - 1) / kReflectedRows;
  at::parallel_for(0, strips, 1, [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t begin = short_and_long(at, strips) * kReflectedRows;
      const int64_t end = std::min(n / 2, begin + kReflectedRows);
      for (int64_t b = begin; b < n - 1 - begin; ++b) {
        for (int64_t a = begin; a < std::min({end, b + 1, n - 1 - b}); ++a)
          std::swap(data[a * n + b], data[(n - 1 - b) * n + n - 1 - a]);
      }
    }
  });
}

// round_compensated with libtorch's operators, for tensors of other devices than the CPU. A column of all rows at a time: what is
// worked on lies transposed, so that a column's numbers lie together.
QuantizedWeight round_with_operators(const at::Tensor& weight, const CompensationFactor& factor, const QuantizedWeight& start,
                                     int bits) {
  const int64_t columns = weight.size(1);
  const at::Tensor groups =
      at::arange(columns, factor.factor.options().dtype(at::kLong)).floor_divide(columns / start.scales.size(1));
  const at::Tensor group_of = factor.order.defined() ? groups.index_select(0, factor.order) : groups;
  const at::Tensor steps = start.scales.t().contiguous();
  const at::Tensor zeros = start.zeros.to(at::kFloat).t().contiguous();
  at::Tensor target = weight.t().contiguous();
  if (factor.order.defined()) target = target.index_select(0, factor.order);
  const at::Tensor error = target.clone();
  at::Tensor codes = at::empty(target.sizes(), start.codes.options());
  const double levels = (1 << bits) - 1;
  for (int64_t begin = 0; begin < columns; begin += kPanel) {
    check_cancelled();
    const int64_t end = std::min(begin + kPanel, columns);
    const at::Tensor step = steps.index_select(0, group_of.narrow(0, begin, end - begin));
    const at::Tensor zero = zeros.index_select(0, group_of.narrow(0, begin, end - begin));
    for (int64_t k = begin; k < end; ++k) {
      const at::Tensor code = (target[k] / step[k - begin]).add_(zero[k - begin]).clamp_(-1e6, 1e6).round_().clamp_(0.0, levels);
      codes[k].copy_(code);
      error[k].sub_((code - zero[k - begin]).mul_(step[k - begin]));
      if (k + 1 < end) target.narrow(0, k + 1, end - k - 1).addr_(factor.factor[k].narrow(0, k + 1, end - k - 1), error[k]);
    }
    if (end < columns) {
      target.narrow(0, end, columns - end)
          .addmm_(factor.factor.narrow(0, begin, end - begin).narrow(1, end, columns - end).t(),
                  error.narrow(0, begin, end - begin));
    }
  }
  if (factor.order.defined()) codes = at::empty_like(codes).index_copy_(0, factor.order, codes);
  return {codes.t().contiguous(), start.zeros, start.scales};
}

}  // namespace

CompensationFactor factorize_gram(const at::Tensor& gram, const RoundingOptions& options) {
  CompensationFactor result;
  at::Tensor diagonal = gram.diagonal().clone();
  const double mean = total(diagonal) / static_cast<double>(diagonal.numel());
  diagonal = at::where(diagonal > 0.0, diagonal, at::ones_like(diagonal) * (mean > 0 ? mean : 1.0));
  if (options.order == ColumnOrder::kActivation) {
    result.order = at::argsort(diagonal, /*stable=*/true, /*dim=*/0, /*descending=*/true);
    diagonal = diagonal.index_select(0, result.order);
  }
  // H = U D U^T with U upper is the Cholesky factorisation of the matrix with rows and columns reversed. All in the memory of the
  // result.
  diagonal = diagonal.flip({0});
  at::Tensor factor = at::empty(gram.sizes(), gram.options());
  const at::Tensor known = gram.contiguous();
  for (double damping = options.damping; damping < 1e3; damping = std::max(damping * 10, 1e-4)) {
    gather_reversed(known, result.order, factor);
    factor.diagonal().copy_(diagonal + damping * (mean > 0 ? mean : 1.0));
    const at::Tensor lower = factor.t();  // its columns lie together
    if (!factorize_cholesky(lower)) continue;
    reflect_upper(factor);
    result.factor = factor.div_(factor.diagonal().clone().unsqueeze(0));
    result.damping = damping;
    return result;
  }
  fail(ErrorKind::kInternal, "the Gram matrix of {} channels cannot be factorised", gram.size(0));
}

QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, const AffineOptions& options,
                                  const ClipRange* clip) {
  return round_compensated(weight, factor, quantize_affine(weight, options, clip), options.bits);
}

QuantizedWeight round_compensated(const at::Tensor& weight, const CompensationFactor& factor, const QuantizedWeight& start,
                                  int bits) {
  if (!weight.is_cpu()) return round_with_operators(weight, factor, start, bits);
  QuantizedWeight result{at::empty_like(start.codes), start.zeros, start.scales};
  const int64_t rows = weight.size(0);
  const int64_t columns = weight.size(1);
  const int64_t groups = start.scales.size(1);
  const int64_t group_size = columns / groups;
  const float levels = static_cast<float>((1 << bits) - 1);
  const at::Tensor float_zeros = start.zeros.to(at::kFloat).contiguous();
  const int64_t* order = factor.order.defined() ? factor.order.const_data_ptr<int64_t>() : nullptr;
  // In the order of rounding: what is rounded (brought up to date as columns are done), and the untouched weight, which becomes the
  // error.
  at::Tensor target = factor.order.defined() ? weight.index_select(1, factor.order) : weight.clone();
  at::Tensor error = target.clone();
  const float* u = factor.factor.const_data_ptr<float>();
  const float* scales = result.scales.const_data_ptr<float>();
  const float* zeros = float_zeros.const_data_ptr<float>();
  auto* codes = result.codes.data_ptr<uint8_t>();
  auto* t = target.data_ptr<float>();
  auto* e = error.data_ptr<float>();
  for (int64_t begin = 0; begin < columns; begin += kPanel) {
    check_cancelled();
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
        round_panel(t + row * columns + begin, u + begin * columns + begin, columns, step.data(), zero.data(), levels, count,
                    found.data(), e + row * columns + begin);
        for (int64_t k = 0; k < count; ++k) {
          const int64_t column = order != nullptr ? order[begin + k] : begin + k;
          codes[row * columns + column] = static_cast<uint8_t>(found[static_cast<size_t>(k)]);
        }
      }
    });
    const int64_t rest = columns - begin - count;
    if (rest > 0) {
      add_product(target.narrow(1, begin + count, rest), error.narrow(1, begin, count),
                  factor.factor.narrow(0, begin, count).narrow(1, begin + count, rest));
    }
  }
  return result;
}

}  // namespace salient::quant
