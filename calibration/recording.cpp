#include "calibration/recording.h"

#include <algorithm>

#include "calibration/calibration_set.h"
#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "models/text/dataset.h"

namespace salient::calibration {
namespace fs = std::filesystem;
namespace {

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

std::string key_of(uint64_t seed, std::string_view domain, std::span<const models::TokenId> tokens) {
  Sha256 hash;
  hash.update(fmt::format("{}/{}", seed, domain));
  hash.update(std::string_view("\0", 1));
  std::string text;
  for (const models::TokenId id : tokens) fmt::format_to(std::back_inserter(text), "{} ", id);
  hash.update(text);
  return hash.hex();
}

std::vector<models::TokenId> ids_of(const Json& list, const std::string& where) {
  std::vector<models::TokenId> ids;
  bool valid = list.is_array() && !list.empty();
  if (valid) {
    for (const Json& id : list) {
      valid = valid && id.is_number_integer() && id >= 0 && id <= INT32_MAX;
      if (valid) ids.push_back(id.get<models::TokenId>());
    }
  }
  if (!valid) fail(ErrorKind::kCorruption, "{}: key 'tokens': expected a list of token ids", where);
  return ids;
}

void check(const RecordingOptions& o) {
  if (o.file.extension() != ".jsonl") {
    fail(ErrorKind::kInvalidArgument, "calibration recording '{}': expected a file name that ends in .jsonl", o.file.string());
  }
  if (o.max_rows < 0 || o.max_row_tokens < 1 || o.min_row_tokens < 1 || o.min_row_tokens > o.max_row_tokens ||
      o.max_tokens < o.max_row_tokens || o.flush_rows < 1) {
    fail(ErrorKind::kInvalidArgument,
         "calibration recording: found max_rows {}, max_tokens {}, max_row_tokens {}, min_row_tokens {}, flush_rows {}; expected "
         "max_rows >= 0, 1 <= min_row_tokens <= max_row_tokens <= max_tokens, flush_rows >= 1",
         o.max_rows, o.max_tokens, o.max_row_tokens, o.min_row_tokens, o.flush_rows);
  }
}

}  // namespace

Recording::Recording(RecordingOptions options) : options_(std::move(options)) {
  check(options_);
  merge_files();
}

Recording::~Recording() {
  try {
    flush();
  } catch (const std::exception& error) {
    log_warn("calibration_recording_lost file={} reason={}", options_.file.string(), error.what());
  }
}

void Recording::add(std::span<const models::TokenId> tokens, std::string_view domain, int64_t response_begin) {
  const std::lock_guard lock(mutex_);
  add_locked(tokens, domain, response_begin);
}

void Recording::add(std::span<const int64_t> tokens, std::string_view domain, int64_t response_begin) {
  std::vector<models::TokenId> narrow;
  narrow.reserve(tokens.size());
  for (const int64_t id : tokens) {
    if (id < 0 || id > INT32_MAX) fail(ErrorKind::kInvalidArgument, "calibration recording: token id {} is no id", id);
    narrow.push_back(static_cast<models::TokenId>(id));
  }
  add(std::span<const models::TokenId>(narrow), domain, response_begin);
}

void Recording::add_locked(std::span<const models::TokenId> tokens, std::string_view domain, int64_t response_begin) {
  for (const models::TokenId id : tokens) {
    if (id < 0) fail(ErrorKind::kInvalidArgument, "calibration recording: token id {} is no id", id);
  }
  const auto longest = static_cast<size_t>(options_.max_row_tokens);
  for (size_t begin = 0; begin < tokens.size(); begin += longest) {
    const auto piece = tokens.subspan(begin, std::min(longest, tokens.size() - begin));
    const auto length = static_cast<int64_t>(piece.size());
    if (length < options_.min_row_tokens) continue;
    Counts& seen = seen_new_[std::string(domain)];
    ++seen.rows;
    seen.tokens += length;
    const int64_t response = response_begin < 0 ? -1 : std::clamp<int64_t>(response_begin - static_cast<int64_t>(begin), 0, length);
    if (keep(key_of(options_.seed, domain, piece), {{piece.begin(), piece.end()}, std::string(domain), response})) ++new_rows_;
  }
  if (new_rows_ >= options_.flush_rows) flush_locked();
}

bool Recording::keep(std::string key, Row row) {
  if (!cutoff_.empty() && key >= cutoff_) return false;
  const auto length = static_cast<int64_t>(row.tokens.size());
  const int64_t response = row.response_begin;
  const auto [at, is_new] = rows_.try_emplace(std::move(key), std::move(row));
  if (!is_new) {
    at->second.response_begin = std::max(at->second.response_begin, response);
    return false;
  }
  tokens_ += length;
  put_out();
  return true;
}

void Recording::put_out() {
  while (tokens_ > options_.max_tokens || (options_.max_rows > 0 && static_cast<int64_t>(rows_.size()) > options_.max_rows)) {
    const auto last = std::prev(rows_.end());
    tokens_ -= static_cast<int64_t>(last->second.tokens.size());
    // While files are merged, rows beyond another process's smaller cutoff may still be here.
    if (cutoff_.empty() || last->first < cutoff_) cutoff_ = last->first;
    rows_.erase(last);
  }
}

void Recording::merge_files() {
  seen_files_.clear();
  const fs::path beside = record_path(options_.file);
  if (fs::exists(beside)) {
    const std::string where = beside.string();
    const Json record = read_json_file(beside);
    if (value_or<std::string>(record, "kind", "", where) != "recording") {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: the record of a calibration file that was not recorded", where))
          .with_hint("record into another file");
    }
    const auto differs = [&](std::string_view what, const std::string& found, const std::string& given) {
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: made with {} {}, but {} is given", where, what, found, given))
          .with_hint("give the same, or record into another file");
    };
    const auto seed = static_cast<uint64_t>(require<int64_t>(record, "seed", where));
    if (seed != options_.seed) differs("seed", std::to_string(seed), std::to_string(options_.seed));
    const auto tokenizer = require<std::string>(record, "tokenizer_sha256", where);
    if (options_.tokenizer_sha256.empty()) options_.tokenizer_sha256 = tokenizer;
    if (!tokenizer.empty() && tokenizer != options_.tokenizer_sha256) differs("tokenizer", tokenizer, options_.tokenizer_sha256);
    const auto cutoff = require<std::string>(record, "cutoff", where);
    if (!cutoff.empty()) {
      const auto rows = require<int64_t>(record, "max_rows", where);
      const auto tokens = require<int64_t>(record, "max_tokens", where);
      if (rows > 0 && (options_.max_rows == 0 || options_.max_rows > rows)) {
        differs("max_rows", std::to_string(rows), std::to_string(options_.max_rows));
      }
      if (options_.max_tokens > tokens) differs("max_tokens", std::to_string(tokens), std::to_string(options_.max_tokens));
      if (cutoff_.empty() || cutoff < cutoff_) cutoff_ = cutoff;
    }
    const Json domains = require<Json>(record, "domains", where);
    for (const auto& [name, counts] : domains.items()) {
      seen_files_[name] = {require<int64_t>(counts, "rows_seen", where), require<int64_t>(counts, "tokens_seen", where)};
    }
  }
  if (fs::exists(options_.file) && fs::file_size(options_.file) > 0) {
    const models::Dataset data = models::read_dataset(options_.file);
    for (size_t i = 0; i < data.rows.size(); ++i) {
      const std::string where = fmt::format("{}:{}", options_.file.string(), data.line_numbers[i]);
      const Json& row = data.rows[i];
      std::vector<models::TokenId> ids = ids_of(row.value("tokens", Json()), where);
      const auto domain = value_or<std::string>(row, "domain", "", where);
      const auto response = value_or<int64_t>(row, "response_begin", -1, where);
      std::string key = key_of(options_.seed, domain, ids);
      keep(std::move(key), {std::move(ids), domain, response});
    }
  }
  if (!cutoff_.empty()) {  // another process may have put out what is kept here
    for (auto at = rows_.lower_bound(cutoff_); at != rows_.end(); at = rows_.erase(at)) {
      tokens_ -= static_cast<int64_t>(at->second.tokens.size());
    }
  }
}

Json Recording::record() const {
  Json domains = Json::object();
  for (const auto& [name, counts] : summary_locked().domains) {
    domains[name] = {{"rows_seen", counts.rows_seen},
                     {"tokens_seen", counts.tokens_seen},
                     {"rows_kept", counts.rows_kept},
                     {"tokens_kept", counts.tokens_kept}};
  }
  return {{"kind", "recording"},
          {"format_version", kRecordFormatVersion},
          {"seed", options_.seed},
          {"tokenizer_sha256", options_.tokenizer_sha256},
          {"max_rows", options_.max_rows},
          {"max_tokens", options_.max_tokens},
          {"max_row_tokens", options_.max_row_tokens},
          {"min_row_tokens", options_.min_row_tokens},
          {"cutoff", cutoff_},
          {"domains", domains}};
}

void Recording::flush() {
  const std::lock_guard lock(mutex_);
  flush_locked();
}

void Recording::flush_locked() {
  if (seen_new_.empty()) return;
  fs::create_directories(folder_of(options_.file));
  const FolderLock lock(folder_of(options_.file));  // while its files are merged
  merge_files();
  std::string bytes;
  for (const auto& [key, row] : rows_) {
    Json line = {{"domain", row.domain}, {"tokens", row.tokens}};
    if (row.response_begin >= 0) line["response_begin"] = row.response_begin;
    bytes += dump_json(line) + "\n";
  }
  write_file(options_.file, bytes);
  write_file(record_path(options_.file), dump_json(record(), 2) + "\n");
  for (const auto& [name, counts] : seen_new_) {
    seen_files_[name].rows += counts.rows;
    seen_files_[name].tokens += counts.tokens;
  }
  seen_new_.clear();
  new_rows_ = 0;
}

RecordingSummary Recording::summary() const {
  const std::lock_guard lock(mutex_);
  return summary_locked();
}

RecordingSummary Recording::summary_locked() const {
  RecordingSummary result;
  for (const auto* counts : {&seen_files_, &seen_new_}) {
    for (const auto& [name, seen] : *counts) {
      result.domains[name].rows_seen += seen.rows;
      result.domains[name].tokens_seen += seen.tokens;
    }
  }
  for (const auto& [key, row] : rows_) {
    RecordedDomain& domain = result.domains[row.domain];
    ++domain.rows_kept;
    domain.tokens_kept += static_cast<int64_t>(row.tokens.size());
  }
  result.rows_kept = static_cast<int64_t>(rows_.size());
  result.tokens_kept = tokens_;
  return result;
}

}  // namespace salient::calibration
