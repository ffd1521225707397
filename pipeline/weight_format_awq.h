// AutoAWQ's four layouts of 4-bit codes: quant/awq_gemm.h, awq_gemv.h, awq_gemv_fast.h, awq_marlin.h. All floats are float16.
//
// config.json: {"quant_method": "awq", "version": "gemm" | "gemv" | "gemv_fast" | "marlin", "bits": 4, "group_size": 128,
//               "zero_point": true, "modules_to_not_convert": null or names}
// "zero_point" is false for marlin alone. The others store zero points whether the codes are symmetric or not (then all of them 8),
// and readers know them so only.
#pragma once

#include "pipeline/weight_formats.h"

namespace salient::pipeline {

extern const WeightFormatFunctions kAwqGemmFunctions;
extern const WeightFormatFunctions kAwqGemvFunctions;
extern const WeightFormatFunctions kAwqGemvFastFunctions;
extern const WeightFormatFunctions kAwqMarlinFunctions;

}  // namespace salient::pipeline
