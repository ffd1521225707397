// Weights that stay floats: rounded to the values that codes stand for, or only scaled. config.json says nothing of either.
#pragma once

#include "pipeline/weight_formats.h"

namespace salient::pipeline {

extern const WeightFormatFunctions kDequantizedFunctions;
extern const WeightFormatFunctions kSmoothedFunctions;

}  // namespace salient::pipeline
