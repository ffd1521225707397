// x W^T + b for float weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::models {

// at::linear with the same bits for every number of threads where x and weight are float32 on the CPU: by oneDNN, or for few rows
// in fixed tiles (quant/fixed_product.h). libtorch itself gives float32 products to MKL, whose bits follow the number of threads,
// and which takes its AVX2 code on processors that are not Intel's: on two cores of an AMD EPYC with AVX-512 oneDNN's took 0.43 (98
// rows, 512 x 1536), 0.66 (4096 rows, 256 x 768) and 0.86 (4096 rows, 4096 x 4096) of MKL's time. x: [..., in]; weight: [out, in];
// bias: [out], or undefined.
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace salient::models
