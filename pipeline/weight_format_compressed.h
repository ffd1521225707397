// compressed-tensors "pack-quantized": the tensors are in quant/pack_quantized.h, the configuration is that of its
// QuantizationConfig. https://github.com/vllm-project/compressed-tensors
#pragma once

#include <string>
#include <string_view>

#include "pipeline/weight_formats.h"

namespace salient::pipeline {

extern const WeightFormatFunctions kCompressedTensorsFunctions;

// What it takes for all modules inside of a part ("visual", "vision_tower"), wherever it lies: "re:(.*\.)?visual\..*".
std::string part_pattern(std::string_view part);

}  // namespace salient::pipeline
