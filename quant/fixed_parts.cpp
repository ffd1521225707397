#include "quant/fixed_parts.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <vector>

namespace salient::quant {
namespace {

// libtorch gives fewer elements than these to one thread, whatever their number.
constexpr int64_t kElements = 16384;
constexpr int64_t kVectors = 128;  // elements: a multiple of what libtorch's loops take at a time, of any dtype
constexpr int64_t kColumns = 64;

int64_t parts_of(int64_t count, int64_t part) { return (count + part - 1) / part; }

}  // namespace

void in_fixed_parts(int64_t count, int64_t part, const std::function<void(int64_t begin, int64_t end)>& work) {
  const int64_t parts = parts_of(count, part);
  if (parts == 0) return;
  const at::ThreadLocalState state;  // the threads know nothing of this one's modes
  // One part alone would run outside of a parallel region, where libraries take all threads: an empty one goes with it.
  at::parallel_for(0, std::max<int64_t>(2, parts), 1, [&](int64_t first, int64_t last) {
    const at::ThreadLocalStateGuard guard(state);
    for (int64_t i = first; i < std::min(last, parts); ++i) work(i * part, std::min(count, (i + 1) * part));
  });
}

void in_one_thread(const std::function<void()>& work) {
  in_fixed_parts(1, 1, [&](int64_t, int64_t) { work(); });
}

at::Tensor elementwise(const at::Tensor& x, const ElementFunction& function) {
  if (!x.is_cpu() || x.numel() == 0) return function(x);
  const at::Tensor flat = x.reshape({-1});
  const auto part_from = [&](int64_t begin) {
    const int64_t count = std::min(kElements, flat.numel() - begin);
    const at::Tensor part = flat.narrow(0, begin, count);
    const int64_t missing = parts_of(count, kVectors) * kVectors - count;
    return missing == 0 ? function(part) : function(at::constant_pad_nd(part, {0, missing})).narrow(0, 0, count);
  };
  if (flat.numel() <= kElements) return part_from(0).view(x.sizes());
  // The first part says the dtype.
  at::Tensor first;
  in_one_thread([&] { first = part_from(0); });
  at::Tensor result = at::empty(x.sizes(), first.options());
  const at::Tensor to = result.view({-1});
  to.narrow(0, 0, kElements).copy_(first);
  in_fixed_parts(flat.numel() - kElements, kElements, [&](int64_t begin, int64_t end) {
    to.narrow(0, kElements + begin, end - begin).copy_(part_from(kElements + begin));
  });
  return result;
}

double total(const at::Tensor& x) {
  if (!x.is_cpu()) return x.sum(at::kDouble).item<double>();
  const at::Tensor flat = x.reshape({-1});
  std::vector<double> sums(static_cast<size_t>(parts_of(flat.numel(), kElements)));
  in_fixed_parts(flat.numel(), kElements, [&](int64_t begin, int64_t end) {
    sums[static_cast<size_t>(begin / kElements)] = flat.narrow(0, begin, end - begin).sum(at::kDouble).item<double>();
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

at::Tensor sum_of_rows(const at::Tensor& x) {
  if (!x.is_cpu()) return x.sum(0, /*keepdim=*/false, at::kDouble);
  at::Tensor sums = at::empty({x.size(1)}, x.options().dtype(at::kDouble));
  in_fixed_parts(x.size(1), kColumns, [&](int64_t begin, int64_t end) {
    sums.narrow(0, begin, end - begin).copy_(x.narrow(1, begin, end - begin).sum(0, /*keepdim=*/false, at::kDouble));
  });
  return sums;
}

}  // namespace salient::quant
