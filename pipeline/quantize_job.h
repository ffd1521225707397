// From a model folder and calibration files to a quantized artifact: what the quantize command and the quantize stage of a run both
// do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibration/coverage.h"
#include "calibration/mixture.h"
#include "calibration/token_blocks.h"
#include "common/json.h"
#include "pipeline/quantize_model.h"

namespace salient::pipeline {

struct QuantizeJob {
  std::filesystem::path calibration_file;               // rows of any kind: calibration_rows.h
  std::vector<calibration::CalibrationSource> sources;  // several files, mixed by weight (mixture.h); instead of calibration_file
  int64_t samples = 0;                                  // rows to use in all, the first ones; 0 = all
  uint64_t seed = 42;                                   // of the draw from several sources, or from one with a number of samples
  int64_t max_seq_len = 512;
  calibration::Packing packing = calibration::Packing::kConcat;
  calibration::LongRows long_rows = calibration::LongRows::kSplit;
  bool discard_long_rows = false;  // the older spelling of LongRows::kDiscard
  calibration::LossMask loss_mask = calibration::LossMask::kAll;
  calibration::TextRows text_rows = calibration::TextRows::kLines;
  // Tokens that the float model writes itself, as a share of the others, where rounding is compensated
  // (calibration/self_generation.h).
  double self_generated = 0.75;
  // A folder in which these rows are kept for other jobs of the same model, and for this one should it be stopped; empty = nowhere.
  std::filesystem::path cache;
  calibration::RenderOptions render;                               // of training rows: content, system prompt, field names
  std::function<void(int64_t done, int64_t total)> on_generation;  // steps of the model's own rows
  QuantizeModelOptions model;  // model_folder, output, awq, device, ...; calibration_record is filled in here
};

struct QuantizeJobResult {
  QuantizeModelResult model;
  calibration::TokenStatistics tokens;
  calibration::CoverageReport coverage;
  double seconds = 0;  // of everything: calibration rows, those that the model writes, quantization
};

// What run_quantize_job calibrates on.
struct CalibrationInput {
  calibration::TokenBlocks blocks;
  calibration::CoverageReport coverage;
  Json record;                     // goes into the artifact's metadata: files with their hashes, settings, counts, coverage
  std::vector<std::string> notes;  // worth telling the user
  std::optional<uint64_t> seed;    // of the texts' own record, where one file has one
};

// Errors: those of check_sources, read_calibration_rows, mix_rows and pack_blocks.
CalibrationInput prepare_calibration(const QuantizeJob& job);

// What quantize_model is to do for a job.
struct PreparedJob {
  QuantizeModelOptions model;  // calibration_record and seed filled in
  CalibrationInput input;
};
// Says what the user should know of it. Errors: those of check_quantization and prepare_calibration.
PreparedJob prepare_job(const QuantizeJob& job);

// Without calibration rows where none are needed (needs_calibration). Errors: those of prepare_calibration and quantize_model.
QuantizeJobResult run_quantize_job(const QuantizeJob& job);

// {"name", "rtn_error", "error", ...} of the whole model: sums over the linears, and how much of the rounding error is left.
Json summarize_reports(const std::vector<LinearReport>& reports);

}  // namespace salient::pipeline
