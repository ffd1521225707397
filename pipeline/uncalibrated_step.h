// One block without calibration tokens: what a search found before is applied (pipeline/search_result.h), weights are rounded to
// nearest. Errors in the reports are then those of the weights themselves, as if all input channels were alike and independent.
#pragma once

#include <vector>

#include "pipeline/block_step.h"
#include "quant/input_statistics.h"

namespace salient::pipeline {

// Of inputs about which nothing is known: as of one token for each channel, in which that channel alone is 1.
quant::InputStatistics white_statistics(int64_t features);

// Loads the block (of a mixture one expert at a time) and stores its tensors, but for its parameters. Nothing goes on to the next.
std::vector<LinearReport> run_uncalibrated_step(const BlockStep& step, const models::BlockLayout& layout);

}  // namespace salient::pipeline
