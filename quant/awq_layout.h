// What AutoAWQ's layouts for other kernels than GEMM have in common: awq_gemv.h, awq_gemv_fast.h, awq_marlin.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "quant/affine.h"

namespace salient::quant {

// Errors: invalid argument, naming `layout`, when codes, zero points and scales do not fit each other or a code or zero point is
// beyond 4 bits.
void check_four_bits(const QuantizedWeight& weight, std::string_view layout);

// The scales rounded to `dtype`, float16 or bfloat16. Errors: invalid argument for another dtype and for a scale that is not finite
// in it.
at::Tensor to_stored_scales(const at::Tensor& scales, at::ScalarType dtype, std::string_view layout);

// GEMV and GEMV_FAST pad the groups of a row to whole steps of their kernels, of 1024 input channels each. In words of 8 zero
// points that is
//   ZW = ceil(in_features / 1024) * 128 / group_size
// so 8 * ZW >= in_features / group_size. Example: 11008 input channels in groups of 128: 86 groups, ZW = 11, 88 places.
// Errors: invalid argument for group sizes other than 32, 64 and 128.
int64_t padded_zero_words(int64_t in_features, int64_t group_size);

}  // namespace salient::quant
