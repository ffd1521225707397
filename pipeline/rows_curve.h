// How the result of a quantization changes with the number of calibration rows: rounding is repeated with what the first eighth,
// quarter and half of the rows give, with the same scales and clipping, and measured on the rows that were held back.
#pragma once

#include <span>

#include "common/json.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Errors: invalid argument where `rows_curve` asks for what cannot be measured: only compensated rounding whose off-diagonal factor
// is chosen holds rows back.
void check_rows_curve(const AwqOptions& options);

// [[blocks of calibration tokens, held-back error, held-back error of rounding to nearest], ...], sums over the linears that were
// measured, in the order of rising blocks. Empty when none were.
Json rows_curve_json(std::span<const LinearReport> reports);

}  // namespace salient::pipeline
