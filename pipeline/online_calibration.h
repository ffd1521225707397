// Online calibration: what a model reads and writes while it is evaluated or generates becomes calibration data for its next
// quantization.
//
//   FILE.jsonl                    token rows, a sample of all that was run (calibration/recording.h); `salient quantize --calib
//   FILE.jsonl` reads it FILE.record.json              what was seen and kept FILE.activations.safetensors  per-channel statistics
//   of every linear's input over all tokens that were run (channel_statistics.h)
//
// Tokens are the record, not activations. Quantization runs them again, block by block, and so gets exactly the statistics that the
// running model had, the Gram matrices included; and where errors are propagated, those behind the blocks that are quantized
// already, which no running model can give. The Gram matrices themselves would be stored at 4 features^2 bytes for each input: for
// a model of 7 billion weights 32 x (3 x 4096^2 + 11008^2) x 4 = 22 GB, against 4 bytes a token here. A million tokens, far more
// than a quantization needs, are a few megabytes of text.
//
// A row is in the record once, however often it is run; the channel statistics are sums over all runs, so that recording twice
// equals recording once over both.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "calibration/recording.h"
#include "eval/language_model.h"
#include "eval/run_observer.h"
#include "pipeline/channel_statistics.h"

namespace salient::pipeline {

struct OnlineCalibrationOptions {
  std::filesystem::path file;  // .jsonl; gone on with when it exists
  int64_t max_rows = 128;      // rows kept; 0 = no limit
  // How often both files are written while the model runs. What was written survives a kill.
  std::chrono::milliseconds interval = std::chrono::seconds(60);
};

// "a/x.jsonl" -> "a/x.activations.safetensors".
std::filesystem::path activations_path(const std::filesystem::path& record);

struct OnlineCalibrationSummary {
  calibration::RecordingSummary rows;  // of the file
  int64_t tokens = 0;                  // run since construction, all of them
  int64_t inputs = 0;                  // of linears that have statistics in the file
};

// One model at a time; one process at a time writes a file's channel statistics (rows of several are merged).
class OnlineCalibration {
 public:
  // `model` must outlive it. Errors: those of Recording and read_model_statistics; invalid argument when the statistics beside the
  // file are those of another model.
  OnlineCalibration(const OnlineCalibrationOptions& options, const eval::LanguageModel& model);
  // Does not write: what is not finished (a broken model, an error) adds only what earlier intervals have written, and the rows.
  ~OnlineCalibration() = default;
  OnlineCalibration(const OnlineCalibration&) = delete;
  OnlineCalibration& operator=(const OnlineCalibration&) = delete;

  // To be passed to what runs the model; valid as long as this object. Its functions throw the errors of finish().
  const eval::RunObserver& observer() const { return observer_; }

  // Writes everything. Errors: io; check failed for activations that are not finite, after the rows were written.
  OnlineCalibrationSummary finish();

 private:
  void add_row(std::span<const models::TokenId> row, std::string_view source, int64_t response_begin);
  void write_statistics();

  const eval::LanguageModel& model_;
  std::filesystem::path statistics_file_;
  std::chrono::milliseconds interval_;
  calibration::Recording recording_;
  ModelStatistics since_written_;
  int64_t tokens_ = 0;
  int64_t inputs_ = 0;
  std::chrono::steady_clock::time_point written_;
  eval::RunObserver observer_;
};

// "recorded 12 rows, 3400 tokens in FILE; ...": for people, with the command that comes next.
std::string describe(const OnlineCalibrationSummary& summary, const std::filesystem::path& file);

}  // namespace salient::pipeline
