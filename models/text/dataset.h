// Local data sets as rows of JSON objects, whatever file they lie in. Evaluation and calibration read through this one place.
//
// Formats, chosen by extension unless `format` names one:
//   jsonl    .jsonl .ndjson .jsonlines  one JSON object a line; blank lines do not count
//   json     .json                      [{...}, ...] or {"data": [{...}, ...]}; JSON lines under this extension are recognised
//   csv      .csv                       RFC 4180 with a header row: quoted fields may hold separators, "" and newlines; values
//                                       are strings
//   tsv      .tsv .tab                  the same with tabs
//   txt      .txt .text .raw            one row {"text": line} for each line that holds more than white space
//   parquet  .parquet                   models/text/parquet_rows.h; recognised under every extension
// A UTF-8 byte order mark is skipped. Gzip and UTF-16 are recognised and refused with the way out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/json.h"

namespace salient::models {

struct DatasetOptions {
  std::string format;         // one of the names above; empty: by extension
  bool allow_broken = false;  // skip and count broken lines instead of failing
};

struct Dataset {
  std::vector<Json> rows;             // objects, in file order
  std::vector<int64_t> line_numbers;  // for each row the line it starts on, from 1; in a JSON list or Parquet its position, from 1
  std::string sha256;                 // of the file's bytes
  int64_t skipped = 0;                // broken lines left out; 0 unless allow_broken
  std::vector<std::string> broken;    // the first of them: "line 7: reason"
  int64_t replaced_utf8 = 0;          // ill-formed UTF-8 sequences that became U+FFFD
  std::string format;                 // the format that was read
  std::filesystem::path path;
};

// Reads the whole file through a mapping, one line at a time (a JSON list as a whole), so that the text is never held twice.
// Errors: not found, io; corruption: broken lines (how many of how many, the first ones with line number and reason, code
// DATA_LINES_BROKEN), malformed JSON, a header with repeated names; invalid argument: no rows at all, an unknown extension or
// format; unsupported: gzip, zip, UTF-16, and Parquet in a build without it.
Dataset read_dataset(const std::filesystem::path& path, const DatasetOptions& options = {});

}  // namespace salient::models
