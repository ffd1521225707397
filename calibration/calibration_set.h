// Calibration texts on disk, and the record of where they come from.
//
//   calibration_<dataset>_<rows in the training set>samples.jsonl         one {"text": "..."} a line
//   calibration_<dataset>_<rows in the training set>samples.txt           the older form: one text a line
//   calibration_<dataset>_<rows in the training set>samples.record.json   CalibrationRecord
//
// The .txt form writes a line feed inside a text as the two characters \n, a carriage return as \r and a backslash as \\ ; reading
// takes the three back and leaves any other backslash alone. A text file by another hand that means a backslash before n or r
// (LaTeX: \nabla, \rho) must double it, or be given as .jsonl. Example: the text "1\n2" is the line 1\n2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::calibration {

inline constexpr int64_t kRecordFormatVersion = 1;

struct TokenCounts {
  int64_t total = 0;
  int64_t min = 0;
  int64_t median = 0;  // the lower one of an even number
  int64_t max = 0;
};

// The lengths' sum, smallest, median and largest; zeros when there are none.
TokenCounts count_tokens(std::vector<int64_t> lengths);

// All that decides the texts, and what they are. No time, no absolute path: the same input gives the same bytes.
struct CalibrationRecord {
  std::string dataset;
  int64_t dataset_rows = 0;  // readable rows of the training set
  std::string source_file;   // base name
  std::string source_sha256;
  int64_t source_skipped_lines = 0;
  int64_t source_replaced_utf8 = 0;
  std::string size;  // what was asked for: "auto" or a number
  uint64_t seed = 0;
  std::vector<int64_t> row_numbers;   // from 0, among the readable rows, in the order of the texts, which is draw order
  std::vector<int64_t> line_numbers;  // from 1, in the source file, for the same rows
  std::string layout;                 // of the rows: "pair", "squad", ...; several joined by "+"
  std::string content;                // "prompt" or "conversation"
  std::string system_prompt;
  std::string template_sha256;  // empty: no chat template was used
  std::string tokenizer_sha256;
  int64_t samples = 0;
  std::string texts_sha256;
  TokenCounts tokens;  // of whole texts, before truncation
  int64_t max_seq_len = 0;
  int64_t truncated = 0;   // texts of more than max_seq_len tokens, which quantization splits, cuts or leaves out
  int64_t duplicates = 0;  // drawn rows whose text had been drawn before
};

Json to_json(const CalibrationRecord& record);
// Errors: corruption (missing or wrong keys), unsupported (a newer format version).
CalibrationRecord record_from_json(const Json& json, std::string_view where);

struct CalibrationFileName {
  std::string dataset;
  int64_t dataset_rows = 0;
};

// "calibration_openmath_2000samples". Errors: invalid argument unless `dataset` is made of letters, digits, '.', '_' and '-' and
// starts with none of '.' and '-'.
std::string calibration_stem(const CalibrationFileName& name);
// The reverse, of a path's base name with or without extension; nothing when it is named otherwise.
std::optional<CalibrationFileName> parse_calibration_name(const std::filesystem::path& path);

struct CalibrationSet {
  std::vector<std::string> texts;
  std::optional<CalibrationRecord> record;  // of the file beside it, if it is there and belongs to these texts
  std::string sha256;                       // of the file's bytes
  std::string format;                       // "jsonl" or "txt"
  std::vector<std::string> notes;           // worth telling the user

  // Whether the texts came out of a chat template, which has written BOS and the like already.
  bool from_chat_template() const { return record && !record->template_sha256.empty(); }
};

// Reads either form, by extension. Errors: as read_dataset; invalid argument: a row without `text` (the fields found are listed);
// corruption: a malformed record.
CalibrationSet read_calibration_set(const std::filesystem::path& path);

// A line of the .txt form as the text that it stands for.
std::string text_of_line(std::string_view line);

// The record beside a calibration file, where it is there and belongs to these texts; adds a note where it does not. The record of
// a recording (recording.h) is another thing and left alone. Errors: corruption.
std::optional<CalibrationRecord> record_beside(const std::filesystem::path& calibration_file, const std::vector<std::string>& texts,
                                               std::vector<std::string>& notes);

// The bytes of the .jsonl form, of the .txt form, and of the record file.
std::string jsonl_form(const std::vector<std::string>& texts);
std::string txt_form(const std::vector<std::string>& texts);
std::string record_form(const CalibrationRecord& record);

// <folder>/<stem>.record.json for a calibration file of either form.
std::filesystem::path record_path(const std::filesystem::path& calibration_file);

// Identity of the texts, the same for both forms: SHA-256 over each text followed by a zero byte.
std::string texts_sha256(const std::vector<std::string>& texts);

struct FileBytes {
  std::filesystem::path path;
  std::string bytes;
};

// Writes the files in order, each whole or not at all; those that exist with the same bytes are left alone. Errors: invalid
// argument, before anything is written, when one exists with other bytes and not `overwrite`; io.
void write_files(const std::vector<FileBytes>& files, bool overwrite);

}  // namespace salient::calibration
