// x W^T + b for float weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace salient::models {

// at::linear with the same bits for every number of threads where x and weight are float32 on the CPU, and from 16 rows on with the
// same bits for a row whatever the others are: by oneDNN where the processor has AVX-512 (VNNI), else by MKL in tiles that each
// have 16 rows and 64 columns or more; for fewer rows in fixed tiles (quant/fixed_product.h). libtorch itself gives float32
// products to MKL, whose bits follow the number of threads, and which takes its AVX2 code on processors that are not Intel's. On
// two cores of an AMD EPYC with AVX-512 oneDNN's took 0.43 (98 rows, 512 x 1536), 0.66 (4096 rows, 256 x 768) and 0.86 (4096 rows,
// 4096 x 4096) of MKL's time; on one with AVX2 MKL's take 0.66 (32 rows, 256 x 256), 0.74 (32 rows, 768 x 256) and 0.91 (1024 rows,
// 768 x 256) of oneDNN's, in one thread. x: [..., in]; weight: [out, in]; bias: [out], or undefined.
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

}  // namespace salient::models
