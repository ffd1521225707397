// Coordinate descent on codes: with scales and zero points held, the codes of each row are changed one at a time wherever that
// makes the row's output error d G d^T smaller (d = dequantized - weight).
//
// The error is a quadratic in each single code, so that the best integer for it is known in closed form: with g = G d, the best
// change of code j is -round(g_j / (G_jj * scale)), clamped to the codes that exist. Rows do not depend on each other. It ends in a
// local minimum that no change of one code improves; starting from error-compensated rounding (GPTQ) it is a cheap polish, starting
// from nearest it finds most of what compensation finds. The same update is used after rounding in Behdin et al., "QuantEase",
// arXiv 2309.01885.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"

namespace salient::quant {

// Changes quantized.codes in place; scales and zeros stay. The error of no row gets larger.
// quantized: of `weight`, any rounding. weight: float32 [out, in]. gram: float32 [in, in], symmetric; its scale does not matter.
// All on one device. sweeps: passes over all columns at most, 0 = nothing is done; it ends earlier where no code changes any more.
// Time: one product [out, in] x [in, in], and for each sweep that product's share of codes that change. Channels with G_jj = 0 are
// left alone. Errors: internal when shapes or dtypes do not match.
void descend_codes(QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram, const AffineOptions& options,
                   int sweeps);

}  // namespace salient::quant
