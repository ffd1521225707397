// Online calibration: token rows gathered while a model works (evaluation, generation) become calibration data for the next
// quantization.
//
//   <file>.jsonl         one {"domain": "...", "response_begin": n, "tokens": [...]} a line; response_begin only where it is known.
//   Read by
//                        read_calibration_rows as token lists, without a tokenizer.
//   <file>.record.json   what was seen and what was kept, by domain; seed, limits, tokenizer
//
// Which rows stay is a matter of their content alone: each row has the key SHA-256(seed, domain, tokens), and the rows with the
// smallest keys stay, up to the limits. That is a uniform sample without replacement of the distinct rows, whatever their order,
// and it can be merged: two recordings, a recording that goes on tomorrow, or a run that was killed and fed the same rows again
// give the same file as one run (sampling by permanent random numbers; Cohen and Kaplan, "Summarizing data using bottom-k
// sketches", PODC 2007). Equal rows count once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/text/tokenizer.h"

namespace salient::calibration {

struct RecordingOptions {
  std::filesystem::path file;      // .jsonl; gone on with when it exists
  int64_t max_rows = 128;          // rows kept; 0 = no limit but max_tokens
  int64_t max_tokens = 1'000'000;  // tokens kept in all rows together, at least max_row_tokens
  int64_t max_row_tokens = 4096;   // longer rows are taken in pieces of this length
  int64_t min_row_tokens = 8;      // shorter rows are left out
  uint64_t seed = 0;
  std::string tokenizer_sha256;  // of tokenizer.json; a file made with another one is refused. Empty: not checked
  int64_t flush_rows = 64;       // write the files after this many newly kept rows
};

struct RecordedDomain {
  int64_t rows_seen = 0;  // fed, pieces of long rows counted one by one
  int64_t tokens_seen = 0;
  int64_t rows_kept = 0;
  int64_t tokens_kept = 0;
};

struct RecordingSummary {
  std::map<std::string, RecordedDomain> domains;
  int64_t rows_kept = 0;
  int64_t tokens_kept = 0;
};

// Safe to feed from many threads; several processes may share a file. What was flushed survives a kill at any moment: the files
// appear whole.
class Recording {
 public:
  // Reads the file and its record where they are. Errors: invalid argument: bad limits, an extension other than .jsonl, another
  // seed or tokenizer than the file's, larger limits than it was made with (the rows put out then are gone); corruption: a
  // malformed file; io.
  explicit Recording(RecordingOptions options);
  // Flushes; an error is logged, as destructors cannot throw. Call flush() to see it.
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // One row of ids as the model read them (prompt, and what it answered). `domain`: where it comes from, such as the task's name.
  // `response_begin`: index of the first token that the model itself wrote, or -1 where that is not known. Errors: invalid
  // argument: a negative id; those of flush().
  void add(std::span<const models::TokenId> tokens, std::string_view domain, int64_t response_begin = -1);
  void add(std::span<const int64_t> tokens, std::string_view domain, int64_t response_begin = -1);

  // Merges with what other processes wrote meanwhile and writes both files, the rows first: a kill between the two leaves the
  // counts of the record one flush behind, and no row is lost. Nothing new: does nothing. Errors: io, corruption.
  void flush();

  // Of the file as it would be written now.
  RecordingSummary summary() const;

 private:
  struct Row {
    std::vector<models::TokenId> tokens;
    std::string domain;
    int64_t response_begin = -1;
  };
  struct Counts {
    int64_t rows = 0;
    int64_t tokens = 0;
  };
  using Rows = std::map<std::string, Row>;  // by key

  void add_locked(std::span<const models::TokenId> tokens, std::string_view domain, int64_t response_begin);
  bool keep(std::string key, Row row);
  void put_out();
  void merge_files();
  void flush_locked();
  Json record() const;
  RecordingSummary summary_locked() const;

  RecordingOptions options_;
  mutable std::mutex mutex_;
  Rows rows_;
  int64_t tokens_ = 0;                        // in rows_
  std::string cutoff_;                        // rows with this key or a larger one do not stay; empty: none was put out yet
  std::map<std::string, Counts> seen_files_;  // by domain: as the record on disk says
  std::map<std::string, Counts> seen_new_;    // since the last flush
  int64_t new_rows_ = 0;
};

}  // namespace salient::calibration
