// The methods that a model can be quantized with, through the same pipeline and names: what each turns on. Single settings given
// beside a method override it.
//
//   rtn       every weight to its nearest code; calibration data changes nothing
//   gptq      Frantar et al., arXiv 2210.17323: error-compensated rounding from the whole Gram matrix; no scaling, no clipping
//   adaround  Nagel et al., arXiv 2004.10568: up or down by optimisation, on the Gram objective; clipping, no scaling
//   awq       Lin et al., arXiv 2306.00978: scaling and clipping, then compensated rounding whose strength is chosen on held-back
//   rows
#pragma once

#include <span>
#include <string_view>

#include "pipeline/awq_options.h"

namespace salient::pipeline {

struct Method {
  std::string_view name;
  bool scale;
  bool clip;
  quant::RoundingOptions rounding;
  bool propagate_error;
};

std::span<const Method> methods();
// The row of this name in any letter case, nullptr when there is none.
const Method* find_method(std::string_view name);
// Sets awq.method and what the method means; everything else stays as it is.
void apply_method(const Method& method, AwqOptions& awq);

}  // namespace salient::pipeline
