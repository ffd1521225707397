// The settings of a quantization as values, and what they make of a job. They are read and printed by the table of
// quantization_settings.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "pipeline/awq_options.h"
#include "pipeline/quantize_job.h"

namespace salient::pipeline {

// The usual name of a row's text, and what QuantizationConfig::text_column means unless it is set: rows with such a field are
// texts, others have the layouts of calibration/render.h.
inline constexpr const char* kUsualTextColumn = "text";

struct QuantizationConfig {
  AwqOptions awq;
  std::filesystem::path save_search;  // a file for what the searches find; empty = none
  uint64_t max_shard_bytes = 5'000'000'000;
  uint64_t max_memory_bytes = 0;  // refuse to start when more may be needed; 0 = what is free
  int64_t batch_tokens = 4096;    // of one forward pass
  // Tokens that the float model writes itself, as a share of the calibration's; nothing = QuantizeJob's
  // default (0.75) with method awq, else none.
  std::optional<double> self_generated;
  // AutoAWQ's names of what is also set elsewhere; nothing = as set there.
  std::optional<int64_t> n_parallel_calib_samples;  // rows of max_seq_len tokens in one forward pass, instead of batch_tokens
  std::optional<int64_t> max_calib_samples;         // calibration.samples
  std::optional<int64_t> max_calib_seq_len;         // calibration.max_seq_len
  std::string split = "train";                      // of a folder of calibration files: <split>.jsonl
  std::string text_column = kUsualTextColumn;       // field of a calibration row that holds the text
};

// Errors: unsupported, for what the format cannot hold: bits, a quantized head. Nothing is stored in codes with
// `export_compatible`.
void check_stored(const AwqOptions& awq);

// Sets what of `job` the settings say: model.awq, sizes, the text's field of the job's calibration files (which must be set
// before), and max_seq_len and samples where given.
void apply_to_job(const QuantizationConfig& config, QuantizeJob& job);
// The file of a calibration folder that `split` names: DIR/train.jsonl, .json, .csv, .txt or .parquet. A path that is no folder
// stays as it is. Errors: not found.
std::filesystem::path resolve_split(const std::filesystem::path& calibration, const std::string& split);

}  // namespace salient::pipeline
