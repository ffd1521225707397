// Calibration data from training data, in one call: read, sample, render, count tokens, write.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calibration/calibration_set.h"
#include "calibration/render.h"
#include "calibration/token_rows.h"

namespace salient::calibration {

struct CalibrateOptions {
  std::filesystem::path source;    // the training set
  std::string format;              // of the source; empty: by extension
  bool allow_broken = false;       // skip and count lines that cannot be read and rows that cannot be rendered
  std::string dataset;             // name in the file name; empty: the source's base name without extension
  std::optional<int64_t> samples;  // nothing: auto (see sampling.h)
  uint64_t seed = 0;
  bool keep_duplicates = false;  // false: a row whose text was drawn before is replaced by the next draw
  RenderOptions render;
  std::filesystem::path model_folder;   // for tokenizer.json and the chat template
  std::filesystem::path chat_template;  // a Jinja file that the training used; empty: the model's
  std::filesystem::path output_folder;
  bool write_txt = false;  // the older form too
  bool overwrite = false;  // of files that exist with other bytes
  int64_t max_seq_len = 512;
  int64_t min_tokens = kMinimumTokens;
};

struct CalibrateResult {
  std::filesystem::path texts_file;   // .jsonl
  std::filesystem::path record_file;  // .record.json
  std::filesystem::path txt_file;     // empty unless write_txt
  CalibrationRecord record;
  std::vector<std::string> notes;  // one sentence each, worth telling the user
};

// Deterministic: the same source, model files and options give the same bytes. Rows are taken in draw order. Nothing is written
// unless all is well; the record is written last, so a texts file without a record was cut short, and the same call completes it.
// Errors: those of read_dataset, render_row, Tokenizer and ChatTemplate; invalid argument: samples below 1, too few tokens
// (CALIBRATION_TOO_SHORT), an output file that exists with other bytes.
CalibrateResult calibrate(const CalibrateOptions& options);

}  // namespace salient::calibration
