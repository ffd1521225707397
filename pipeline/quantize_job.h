// From a model folder and a calibration file to a quantized artifact: what the quantize command and the quantize stage of a run both do.
#pragma once

#include <cstdint>
#include <filesystem>

#include "calibration/token_blocks.h"
#include "common/json.h"
#include "pipeline/quantize_model.h"

namespace salient::pipeline {

struct QuantizeJob {
  std::filesystem::path calibration_file;  // .jsonl or .txt
  int64_t samples = 0;                     // texts of it to use, the first ones; 0 = all
  int64_t max_seq_len = 512;
  calibration::Packing packing = calibration::Packing::kConcat;
  bool discard_long_rows = false;  // AutoAWQ's way: leave out longer texts instead of cutting them
  QuantizeModelOptions model;      // model_folder, output, awq, device, ...; calibration_record is filled in here
};

struct QuantizeJobResult {
  QuantizeModelResult model;
  calibration::TokenStatistics tokens;
};

// Errors: those of read_calibration_set, make_token_blocks and quantize_model.
QuantizeJobResult run_quantize_job(QuantizeJob job);

// {"name", "rtn_error", "error", ...} of the whole model: sums over the linears, and how much of the rounding error is left.
Json summarize_reports(const std::vector<LinearReport>& reports);

}  // namespace salient::pipeline
