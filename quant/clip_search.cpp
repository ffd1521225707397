#include "quant/clip_search.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <vector>

#include "common/cancellation.h"
#include "quant/fixed_parts.h"
#include "quant/kernels/quadratic_form.h"

namespace salient::quant {
namespace {

// Bounds the temporaries of a candidate also where the memory would allow more: larger slices are not faster, they leave the cache.
constexpr int64_t kClipRows = 480;

// d^T G_g d for each group of each row, [rows, groups], of what `range` (null: the full one) leaves of the weight. error: scratch
// [groups, rows, group].
at::Tensor error_by_group(const at::Tensor& weight, const GroupRanges& full, const AffineOptions& options, const ClipRange* range,
                          const at::Tensor& gram, const at::Tensor& error) {
  const int64_t rows = weight.size(0);
  const int64_t group = options.group_size;
  const int64_t groups = weight.size(1) / group;
  write_quantization_error(weight, {}, options, range, error, &full);
  if (!weight.is_cpu()) {
    const at::Tensor blocks = gram.view({groups, group, groups, group}).diagonal(0, 0, 2).permute({2, 0, 1});
    return at::bmm(error, blocks).mul_(error).sum(2).t();
  }
  at::Tensor result = at::empty({rows, groups}, at::kFloat);
  QuadraticForms all{error.const_data_ptr<float>(),    group, rows, gram.const_data_ptr<float>(), gram.size(1), group,
                     result.mutable_data_ptr<float>(), groups};
  at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      QuadraticForms one = all;
      one.errors += g * rows * group;
      one.gram += g * group * (gram.size(1) + 1);  // its block on the diagonal
      one.forms += g;
      find_quadratic_forms(one);
    }
  });
  return result;
}

}  // namespace

ClipSearchResult search_clip(const at::Tensor& weight, const at::Tensor& gram, int64_t rows, const AffineOptions& options,
                             const ClipSearchOptions& search) {
  const int64_t out = weight.size(0);
  const int64_t groups = weight.size(1) / options.group_size;
  const at::Tensor known = gram.contiguous();
  ClipSearchResult result;
  result.range = {at::ones({out, groups}, weight.options()), at::ones({out, groups}, weight.options())};
  result.error_before = at::empty({out}, weight.options());
  result.error_after = at::empty({out}, weight.options());
  int64_t clipped = 0;

  const int64_t slice = std::min(kClipRows, rows_in_memory(search.max_chunk_memory, weight.size(1)));
  for (int64_t begin = 0; begin < out; begin += slice) {
    check_cancelled();
    const int64_t count = std::min(slice, out - begin);
    const at::Tensor part = weight.narrow(0, begin, count);
    at::Tensor best_low = at::ones({count, groups}, weight.options());
    at::Tensor best_high = at::ones({count, groups}, weight.options());
    const GroupRanges full = group_ranges(part, options.group_size);
    const at::Tensor scratch = at::empty({groups, count, options.group_size}, weight.options());
    at::Tensor best = error_by_group(part, full, options, nullptr, known, scratch);
    const auto try_range = [&](const ClipRange& candidate) {
      const at::Tensor error = error_by_group(part, full, options, &candidate, known, scratch);
      const at::Tensor better = error < best;
      best = at::where(better, error, best);
      best_low = at::where(better, candidate.low, best_low);
      best_high = at::where(better, candidate.high, best_high);
    };
    const auto constant = [&](double value) { return at::full({count, groups}, value, weight.options()); };
    const auto factor = [&](int step) { return 1.0 - search.max_shrink * step / (search.steps - 1); };
    for (int i = 1; i < search.steps; ++i) try_range({constant(factor(i)), constant(factor(i))});
    // Then each end in turn with the other held: a third of the work of trying all pairs, and on the demo model no worse by more
    // than noise. A symmetric range has one magnitude, so that its two ends can only shrink together.
    if (options.zero_point) {
      const ClipRange together{best_low, best_high};
      for (int i = 0; i < search.steps; ++i) try_range({constant(factor(i)), together.high});
      const ClipRange with_low{best_low, best_high};
      for (int i = 0; i < search.steps; ++i) try_range({with_low.low, constant(factor(i))});
    }
    // Groups were judged alone; what they do to each other through the rest of the Gram matrix is checked here, row by row.
    const ClipRange chosen{best_low, best_high};
    const at::Tensor before = output_error_by_row(quantization_error(part, {}, options), gram, rows);
    const at::Tensor after = output_error_by_row(quantization_error(part, {}, options, &chosen), gram, rows);
    const at::Tensor keep = (after < before).unsqueeze(1);
    const at::Tensor one = at::ones({count, groups}, weight.options());
    result.range.low.narrow(0, begin, count).copy_(at::where(keep, best_low, one));
    result.range.high.narrow(0, begin, count).copy_(at::where(keep, best_high, one));
    result.error_before.narrow(0, begin, count).copy_(before);
    result.error_after.narrow(0, begin, count).copy_(at::where(after < before, after, before));
    clipped += (keep & ((best_low < 1.0) | (best_high < 1.0))).sum().item<int64_t>();
  }
  result.clipped_share = static_cast<double>(clipped) / static_cast<double>(out * groups);
  return result;
}

}  // namespace salient::quant
