// Calibration rows as options of a command: which files, and how their rows become blocks of tokens.
#pragma once

#include <string>
#include <vector>

#include "pipeline/commands/arguments.h"
#include "pipeline/quantize_job.h"

namespace salient::pipeline {

// --calib, and the options that say how its rows are read.
OptionRow calibration_files_option();
std::vector<OptionRow> calibration_options();

// Fills in what of `job` they say. Files may only be missing where `optional` says so. Errors: invalid argument, not found.
void read_calibration(const Arguments& arguments, const std::string& split_name, bool optional, QuantizeJob& job);

}  // namespace salient::pipeline
