// AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv 2004.10568) on the Gram matrix.
//
// Scales and zero points are held; each code may be one of the two around its weight. The choice is relaxed to h in [0, 1], a
// sigmoid of a variable V stretched to [-0.1, 1.1] and clipped, and V is moved by Adam on
//
//   d G d^T / e + regularization * sum over codes of c^1.5 * (1 - |2 h - 1|^beta),    d = scale * (lower code + h - zero) - w
//
// row by row, e being the row's error when rounded to nearest, divided by its codes, and c = scale^2 G_jj / e. The second term,
// absent during the warm-up, drives h to 0 or 1 while it grows and beta falls. The gradient is in closed form, 2 scale (G d) h'(V),
// so that one iteration costs one product with G and no token is needed. Deterministic: V starts where h is the fraction that
// rounding would lose.
//
// The paper has neither c nor the growth. Without them channels with large inputs are decided last, when nothing is left to make up
// for them: on a random problem with outliers 0.75 of the error of nearest rounding was left after 200 iterations, with them 0.11.
// Where many channels are large some of that remains: descend_codes afterwards removes it.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/affine.h"

namespace salient::quant {

struct AdaroundOptions {
  int iterations = 200;
  double learning_rate = 0.1;
  double regularization = 0.1;          // at the end
  double regularization_start = 0.001;  // share of it right after the warm-up; grows exponentially
  double warm_up = 0.2;                 // share of the iterations without it
  double beta_start = 4;                // beta falls along half a cosine
  double beta_end = 2;
};

// nearest: the weight rounded to nearest (quantize_affine), whose scales and zeros the result has, too. weight: float32 [out, in];
// gram: float32 [in, in], symmetric, on the CPU, any scale. A row that ends with more error than it has rounded to nearest is
// returned rounded to nearest. Errors: internal when shapes or dtypes do not match.
QuantizedWeight round_adaptively(const QuantizedWeight& nearest, const at::Tensor& weight, const at::Tensor& gram,
                                 const AffineOptions& options, const AdaroundOptions& adaround = {});

}  // namespace salient::quant
