// awq-quantize, awq-dequantize, activation-stats, salient-weights: the functions of pipeline/metal_marlin.h on the command line.
#pragma once

#include <string>
#include <vector>

namespace salient::pipeline {

void awq_quantize_command(const std::vector<std::string>& words);
void awq_dequantize_command(const std::vector<std::string>& words);
void activation_stats_command(const std::vector<std::string>& words);
void salient_weights_command(const std::vector<std::string>& words);

}  // namespace salient::pipeline
