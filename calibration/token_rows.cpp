#include "calibration/token_rows.h"

#include <string_view>
#include <unordered_set>

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

}  // namespace

TokenRows tokenize_rows(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer, const TokenRowOptions& options) {
  if (options.max_seq_len < 1) fail(ErrorKind::kInvalidArgument, "max_seq_len is {}, expected at least 1", options.max_seq_len);
  const std::string opening = opening_special(tokenizer);
  const auto limit = static_cast<size_t>(options.max_seq_len);
  TokenRows result;
  std::unordered_set<std::string_view> seen;
  for (const std::string& whole : texts) {
    if (options.max_rows > 0 && static_cast<int64_t>(result.rows.size()) >= options.max_rows) break;
    ++result.texts;
    const std::string_view text = options.discard_long_rows ? strip(whole) : std::string_view(whole);
    const bool add_special = !options.from_chat_template && !opening.empty() && !text.starts_with(opening);
    auto ids = text.empty() ? std::vector<models::TokenId>() : tokenizer.encode(text, add_special);
    if (ids.empty()) {
      ++result.empty;
      continue;
    }
    const auto length = static_cast<int64_t>(ids.size());
    result.lengths.push_back(length);
    if (ids.size() > limit && options.discard_long_rows) {
      ++result.discarded;
      result.discarded_tokens += length;
      continue;
    }
    if (ids.size() > limit) {
      ++result.truncated;
      result.discarded_tokens += length - options.max_seq_len;
      ids.resize(limit);
    }
    if (!seen.insert(text).second) ++result.duplicates;
    result.tokens += static_cast<int64_t>(ids.size());
    result.rows.push_back(std::move(ids));
  }
  return result;
}

void require_tokens(const TokenRows& rows, int64_t tokens, int64_t needed) {
  if (tokens >= needed && tokens > 0) return;
  std::string found = fmt::format("{} texts give {} usable tokens", rows.texts, tokens);
  if (rows.empty > 0) found += fmt::format("; {} texts are empty", rows.empty);
  if (rows.discarded > 0)
    found += fmt::format("; {} are too long and were left out ({} tokens)", rows.discarded, rows.discarded_tokens);
  if (rows.truncated > 0) found += fmt::format("; {} were truncated (by {} tokens)", rows.truncated, rows.discarded_tokens);
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("calibration data are too short: {}; at least {} tokens are needed", found, needed))
      .with_code("CALIBRATION_TOO_SHORT")
      .with_hint(rows.discarded > 0 ? "raise max_seq_len, or truncate long rows instead of leaving them out"
                                    : "take more rows, longer rows, or content 'conversation' with the answers");
}

}  // namespace salient::calibration
