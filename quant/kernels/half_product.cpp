#include "quant/kernels/half_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "common/error.h"

namespace salient::quant {

HalfView half_view_of(const at::Tensor& weight) {
  return {weight.size(1), weight.size(0), static_cast<const uint16_t*>(weight.const_data_ptr()),
          weight.scalar_type() == at::kBFloat16};
}

at::Tensor half_product(const at::Tensor& weight, const at::Tensor& x, InstructionSet set) {
  const at::NoGradGuard no_grad;
  const bool half = weight.scalar_type() == at::kHalf || weight.scalar_type() == at::kBFloat16;
  if (!half || weight.dim() != 2 || !weight.is_contiguous() || x.dim() != 2 || x.scalar_type() != at::kFloat ||
      x.size(1) != weight.size(1)) {
    fail(ErrorKind::kInternal,
         "half product: weight [{}] and input [{}], expected float16 or bfloat16 [out, in], contiguous, and float32 [rows, in]",
         fmt::join(weight.sizes(), ", "), fmt::join(x.sizes(), ", "));
  }
  constexpr int64_t kGrainElements = 1 << 14;
  const HalfView view = half_view_of(weight);
  const at::Tensor input = x.contiguous();
  const auto* in = input.const_data_ptr<float>();
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, at::kFloat);
  auto* out = y.data_ptr<float>();
  const TileKernels& kernels = tile_kernels(set);
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, view.in_features));
  for (int64_t r = 0; r < x.size(0); r += kMaxHalfRows) {
    const int64_t rows = std::min(kMaxHalfRows, x.size(0) - r);
    at::parallel_for(0, view.out_features, grain, [&](int64_t begin, int64_t end) {
      kernels.half_rows(view, in + r * view.in_features, rows, begin, end, out + r * view.out_features);
    });
  }
  return y;
}

}  // namespace salient::quant
