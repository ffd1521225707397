// What calibration did not reach, from the reports of the linears into the coverage report of its rows.
#pragma once

#include <span>

#include "calibration/coverage.h"
#include "common/json.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

// Fills in `channels` and `experts` anew. Of linears that read one input the first stands for all.
void add_reached(calibration::CoverageReport& coverage, std::span<const LinearReport> reports);

// A calibration record as the artifact's metadata holds it: with "coverage" completed where it has one.
Json with_reached(Json calibration_record, std::span<const LinearReport> reports);

}  // namespace salient::pipeline
