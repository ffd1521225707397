// x W^T + b for float weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::models {

// at::linear; where x and weight are float32 on the CPU, with bits of a row that depend on nothing else: not on the other rows, the
// number of threads or the processor's vectors (quant/kernels/float_product.h). libtorch itself gives such products to MKL or
// oneDNN, whose bits follow all three. x: [..., in]; weight: [out, in]; bias: [out], or undefined.
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace salient::models
