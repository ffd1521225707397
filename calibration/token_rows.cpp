#include "calibration/token_rows.h"

#include <algorithm>
#include <string_view>

#include "calibration/token_offsets.h"
#include "common/error.h"

namespace salient::calibration {
namespace {

// What Python's str.strip() takes for white space.
constexpr std::string_view kSpaces[] = {
    "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",   " ",
    "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
    "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
};

std::string_view strip(std::string_view text) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const std::string_view space : kSpaces) {
      if (text.starts_with(space)) text.remove_prefix(space.size()), changed = true;
      if (text.ends_with(space)) text.remove_suffix(space.size()), changed = true;
    }
  }
  return text;
}

// The text of the token that the post-processor puts first, empty when it adds none.
std::string opening_special(const models::Tokenizer& tokenizer) {
  const auto with = tokenizer.encode("", true);
  if (with.empty() || with == tokenizer.encode("", false)) return "";
  return tokenizer.id_to_token(with.front()).value_or("");
}

// `ids` in as few pieces of at most `limit` as will do, of nearly equal length.
std::vector<std::pair<size_t, size_t>> pieces(size_t length, size_t limit) {
  const size_t count = (length + limit - 1) / limit;
  std::vector<std::pair<size_t, size_t>> result;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * (length / count) + std::min(i, length % count);
    result.emplace_back(begin, length / count + (i < length % count ? 1 : 0));
  }
  return result;
}

template <typename Value>
std::vector<Value> part(const std::vector<Value>& values, size_t begin, size_t length) {
  const auto first = values.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(length)};
}

std::string identity(const CalibrationRow& row, std::string_view text) {
  if (row.ids.empty()) return "t" + std::string(text);
  return "i" + std::string(reinterpret_cast<const char*>(row.ids.data()), row.ids.size() * sizeof(models::TokenId));
}

template <typename Kind>
struct NameRow {
  Kind kind;
  std::string_view name;
};
constexpr NameRow<LongRows> kLongRows[] = {{LongRows::kCut, "cut"}, {LongRows::kDiscard, "discard"}, {LongRows::kSplit, "split"}};
constexpr NameRow<LossMask> kLossMasks[] = {{LossMask::kAll, "all"}, {LossMask::kResponse, "response"}};

}  // namespace

LongRows parse_long_rows(std::string_view name) {
  for (const auto& row : kLongRows)
    if (row.name == name) return row.kind;
  fail(ErrorKind::kInvalidArgument, "calibration long_rows: found '{}', expected 'cut', 'discard' or 'split'", name);
}

std::string_view to_string(LongRows kind) {
  for (const auto& row : kLongRows)
    if (row.kind == kind) return row.name;
  fail(ErrorKind::kInternal, "long_rows {} has no name", static_cast<int>(kind));
}

LossMask parse_loss_mask(std::string_view name) {
  for (const auto& row : kLossMasks)
    if (row.name == name) return row.kind;
  fail(ErrorKind::kInvalidArgument, "calibration loss_mask: found '{}', expected 'all' or 'response'", name);
}

std::string_view to_string(LossMask kind) {
  for (const auto& row : kLossMasks)
    if (row.kind == kind) return row.name;
  fail(ErrorKind::kInternal, "loss_mask {} has no name", static_cast<int>(kind));
}

TokenRowCollector::TokenRowCollector(const models::Tokenizer* tokenizer, const TokenRowOptions& options)
    : tokenizer_(tokenizer), options_(options), opening_(tokenizer == nullptr ? "" : opening_special(*tokenizer)) {
  if (options.max_seq_len < 1) fail(ErrorKind::kInvalidArgument, "max_seq_len is {}, expected at least 1", options.max_seq_len);
}

size_t TokenRowCollector::domain_index(const std::string& domain) {
  const auto found = std::find(rows_.domain_names.begin(), rows_.domain_names.end(), domain);
  const auto index = static_cast<size_t>(found - rows_.domain_names.begin());
  if (index == rows_.domain_names.size()) {
    rows_.domain_names.push_back(domain);
    rows_.domain_rows.push_back(0);
  }
  return index;
}

int64_t TokenRowCollector::add(const CalibrationRow& row, const std::string& domain) {
  ++rows_.texts;
  const bool discard = options_.long_rows == LongRows::kDiscard;
  const auto limit = static_cast<size_t>(options_.max_seq_len);
  const bool masked = options_.loss_mask == LossMask::kResponse;
  const std::string_view text = discard ? strip(row.text) : std::string_view(row.text);
  const bool add_special = !row.rendered && !options_.from_chat_template && !opening_.empty() && !text.starts_with(opening_);
  std::vector<models::TokenId> ids = row.ids;
  if (ids.empty() && !text.empty()) {
    if (tokenizer_ == nullptr)
      fail(ErrorKind::kNotFound, "{}: the model folder has no tokenizer.json, but this row is text", row.where);
    ids = tokenizer_->encode(text, add_special);
  }
  if (ids.empty()) {
    ++rows_.empty;
    return 0;
  }
  const auto length = static_cast<int64_t>(ids.size());
  rows_.lengths.push_back(length);
  if (ids.size() > limit && discard) {
    ++rows_.discarded;
    rows_.discarded_tokens += length;
    return 0;
  }
  std::vector<uint8_t> mask;
  if (masked) {
    if (row.ids.empty()) {
      const auto shift = static_cast<size_t>(text.data() - row.text.data());  // white space that was stripped
      std::vector<TextSpan> spans;
      for (const TextSpan& span : row.responses) {
        const TextSpan moved{std::max(span.begin, shift) - shift, std::min(std::max(span.end, shift) - shift, text.size())};
        if (moved.begin < moved.end) spans.push_back(moved);
      }
      mask = mask_tokens(text, ids, spans, *tokenizer_, add_special, row.where);
    } else {
      mask = row.loss_mask.empty() ? std::vector<uint8_t>(ids.size(), 0) : row.loss_mask;
    }
  }
  if (ids.size() > limit && options_.long_rows == LongRows::kCut) {
    ++rows_.truncated;
    rows_.discarded_tokens += length - options_.max_seq_len;
    ids.resize(limit);
    if (masked) mask.resize(limit);
  }
  if (masked && std::find(mask.begin(), mask.end(), 1) == mask.end()) {
    ++rows_.unanswered;
    rows_.discarded_tokens += static_cast<int64_t>(ids.size());
    return 0;
  }
  if (!seen_.insert(identity(row, text)).second) ++rows_.duplicates;
  if (ids.size() > limit) ++rows_.split;
  const size_t index = domain_index(domain);
  ++rows_.domain_rows[index];
  ++rows_.kept;
  rows_.tokens += static_cast<int64_t>(ids.size());
  for (const auto& [begin, count] : pieces(ids.size(), limit)) {
    rows_.rows.push_back(part(ids, begin, count));
    if (masked) rows_.masks.push_back(part(mask, begin, count));
    rows_.domains.push_back(static_cast<int32_t>(index));
  }
  return static_cast<int64_t>(ids.size());
}

TokenRows tokenize_rows(const CalibrationRows& rows, const models::Tokenizer& tokenizer, const TokenRowOptions& options) {
  TokenRowCollector collector(&tokenizer, options);
  for (const CalibrationRow& row : rows.rows) {
    if (collector.full()) break;
    collector.add(row, rows.domains[static_cast<size_t>(row.domain)]);
  }
  return collector.take();
}

TokenRows tokenize_rows(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer, const TokenRowOptions& options) {
  TokenRowCollector collector(&tokenizer, options);
  CalibrationRow row;
  for (const std::string& text : texts) {
    if (collector.full()) break;
    row.text = text;
    collector.add(row, "");
  }
  return collector.take();
}

void require_tokens(const TokenRows& rows, int64_t tokens, int64_t needed) {
  if (tokens >= needed && tokens > 0) return;
  std::string found = fmt::format("{} texts give {} usable tokens", rows.texts, tokens);
  if (rows.empty > 0) found += fmt::format("; {} texts are empty", rows.empty);
  if (rows.discarded > 0)
    found += fmt::format("; {} are too long and were left out ({} tokens)", rows.discarded, rows.discarded_tokens);
  if (rows.truncated > 0) found += fmt::format("; {} were truncated (by {} tokens)", rows.truncated, rows.discarded_tokens);
  if (rows.unanswered > 0) found += fmt::format("; {} hold no answer and were left out", rows.unanswered);
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("calibration data are too short: {}; at least {} tokens are needed", found, needed))
      .with_code("CALIBRATION_TOO_SHORT")
      .with_hint(rows.discarded > 0 ? "raise max_seq_len, or truncate long rows instead of leaving them out"
                                    : "take more rows, longer rows, or content 'conversation' with the answers");
}

}  // namespace salient::calibration
