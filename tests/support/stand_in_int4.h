// The 4-bit operators of a CUDA device on the one that stands in for it, computed by the CPU's own (another implementation, of the
// same definition, behind another interface). Included after support/stand_in_device.h, by one file of a program.
#pragma once

#include <ATen/ops/_convert_weight_to_int4pack_for_cpu.h>
#include <ATen/ops/_weight_int4pack_mm_for_cpu.h>
#include <ATen/ops/stack.h>

#include "support/stand_in_device.h"

namespace salient::test::stand_in {

inline bool swaps_codes = false;  // as if the operator read the halves of a byte the other way round

// bytes: uint8 [out, in / 2], the first of two codes in the high half
inline at::Tensor convert_weight_to_int4pack(const at::Tensor& bytes, int64_t inner_tiles) {
  const at::Tensor from = on_cpu(bytes);
  TORCH_CHECK(from.scalar_type() == at::kByte && from.is_contiguous() && from.dim() == 2, "expected bytes");
  TORCH_CHECK(inner_tiles == 2 || inner_tiles == 4 || inner_tiles == 8, "expected 2, 4 or 8 tiles, got ", inner_tiles);
  TORCH_CHECK(from.size(1) * 2 % (inner_tiles * 16) == 0, "expected whole tiles");
  at::Tensor halves[] = {from.__rshift__(4), from.bitwise_and(15)};
  if (swaps_codes) std::swap(halves[0], halves[1]);
  const at::Tensor codes = at::stack({halves[0], halves[1]}, 2).view({from.size(0), -1}).to(at::kInt);
  return at::_convert_weight_to_int4pack_for_cpu(codes, inner_tiles).to(bytes.device());
}

inline at::Tensor weight_int4pack_mm(const at::Tensor& x, const at::Tensor& packed, int64_t group_size, const at::Tensor& scales) {
  TORCH_CHECK(x.scalar_type() == at::kBFloat16 && scales.scalar_type() == at::kBFloat16, "expected bfloat16");
  TORCH_CHECK(x.is_contiguous() && scales.dim() == 3 && scales.size(2) == 2, "expected scales and zeros side by side");
  return at::_weight_int4pack_mm_for_cpu(on_cpu(x), on_cpu(packed), group_size, on_cpu(scales)).to(x.device());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("_convert_weight_to_int4pack", &convert_weight_to_int4pack);
  library.impl("_weight_int4pack_mm", &weight_int4pack_mm);
}

}  // namespace salient::test::stand_in
