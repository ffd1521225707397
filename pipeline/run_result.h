// What a finished run says of itself.
#pragma once

#include "common/json.h"
#include "pipeline/run_config.h"
#include "pipeline/run_pipeline.h"

namespace salient::pipeline {

// {"run", "artifact", "report", "calibration", "stages_run", "stages_skipped", "peak_memory_bytes", "evaluation"}: what `salient
// run --json` prints.
Json to_json(const RunReport& report);

// To be called last, so that the figures are seen in any case. Errors: check failed, when a model's logits were NaN or infinite, or
// when more was lost than evaluation.max_retention_loss allows.
void check_result(const RunConfig& config, const RunReport& report);

}  // namespace salient::pipeline
