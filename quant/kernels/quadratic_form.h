// What an error of a weight does to the output, by the Gram matrix of the inputs: d G d^T for rows d.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/kernels/instruction_set.h"

namespace salient::quant {

struct QuadraticForms {
  const float* errors = nullptr;  // d: [rows, features], error_stride apart
  int64_t error_stride = 0;
  int64_t rows = 0;
  const float* gram = nullptr;  // G: [features, features], gram_stride apart; symmetric, only its upper half is read
  int64_t gram_stride = 0;
  int64_t features = 0;
  float* forms = nullptr;  // d G d^T: [rows], form_stride apart
  int64_t form_stride = 1;
};

// Products in float32, in the order of the features (quant/kernels/float_product.h), and their sum in float64: of each row alone.
// In the calling thread.
void find_quadratic_forms(const QuadraticForms& of, InstructionSet set = best_instruction_set());

// The same in all threads. errors: float32 [rows, features]; gram: float32 [features, features], both on the CPU. Returns float32
// [rows].
at::Tensor quadratic_forms(const at::Tensor& errors, const at::Tensor& gram, InstructionSet set = best_instruction_set());

}  // namespace salient::quant
