// Calibration rows as rows of token ids, before they are packed into blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "calibration/calibration_rows.h"
#include "models/text/tokenizer.h"

namespace salient::calibration {

// Fewer tokens than this say too little about the inputs of a layer.
inline constexpr int64_t kMinimumTokens = 512;

// What happens to rows of more than max_seq_len tokens.
enum class LongRows {
  kCut,      // the first max_seq_len tokens stay
  kDiscard,  // left out. AutoAWQ's way, which also strips white space from both ends of every text
  kSplit,    // become several rows whose lengths differ by at most one token: nothing is lost, and no piece is a few tokens long
};
// "cut", "discard" or "split". Errors: invalid argument.
LongRows parse_long_rows(std::string_view name);
std::string_view to_string(LongRows kind);

// Which tokens the statistics of a layer's inputs are taken over. All tokens are run through the model either way.
enum class LossMask {
  kAll,
  kResponse,  // those of the assistant's answers; rows without any are left out
};
// "all" or "response". Errors: invalid argument.
LossMask parse_loss_mask(std::string_view name);
std::string_view to_string(LossMask kind);

struct TokenRowOptions {
  int64_t max_seq_len = 512;  // tokens, at least 1
  LongRows long_rows = LongRows::kSplit;
  LossMask loss_mask = LossMask::kAll;
  int64_t max_rows = 0;  // stop after this many rows were kept, a long one that is split counting once; 0: all
  // Whether a chat template wrote all texts, as CalibrationRow::rendered says of one.
  bool from_chat_template = false;
};

struct TokenRows {
  std::vector<std::vector<models::TokenId>> rows;  // none empty, none longer than max_seq_len
  std::vector<std::vector<uint8_t>> masks;         // 1 = counts; as long as the rows. Empty with LossMask::kAll
  std::vector<int32_t> domains;                    // of each row
  std::vector<std::string> domain_names;
  std::vector<int64_t> domain_rows;  // rows kept of each domain, a long one that was split counting once
  std::vector<int64_t> lengths;      // of all rows that have tokens, before anything is cut, split or left out
  int64_t texts = 0;                 // looked at
  int64_t kept = 0;                  // a long one that was split counting once
  int64_t empty = 0;                 // without any token, left out
  int64_t truncated = 0;
  int64_t split = 0;
  int64_t discarded = 0;         // rows left out because they are too long
  int64_t unanswered = 0;        // left out with LossMask::kResponse: no token of theirs is known to be an answer's
  int64_t discarded_tokens = 0;  // tokens cut off or left out with them
  int64_t duplicates = 0;        // kept rows equal to an earlier one
  int64_t tokens = 0;            // in rows
};

// Adds rows one by one.
class TokenRowCollector {
 public:
  // `tokenizer` must outlive the collector; null: only rows of ids can be added. Errors: invalid argument: max_seq_len below 1.
  TokenRowCollector(const models::Tokenizer* tokenizer, const TokenRowOptions& options);

  bool full() const { return options_.max_rows > 0 && rows_.kept >= options_.max_rows; }
  // Returns the number of tokens that were added, 0 when the row was left out. Special tokens (BOS and the like) are added to a
  // text, as transformers does for plain text, unless it came out of a chat template or starts with the text of the first special
  // token already; AutoAWQ would give such a text a second BOS. Errors: those of mask_tokens; not found: a text without a
  // tokenizer.
  int64_t add(const CalibrationRow& row, const std::string& domain);
  TokenRows take() { return std::move(rows_); }

 private:
  size_t domain_index(const std::string& domain);

  const models::Tokenizer* tokenizer_;
  TokenRowOptions options_;
  std::string opening_;  // the text of the token that the post-processor puts first, empty when it adds none
  TokenRows rows_;
  std::unordered_set<std::string> seen_;
};

// All rows in order; texts alone are rows of one domain without a name.
TokenRows tokenize_rows(const CalibrationRows& rows, const models::Tokenizer& tokenizer, const TokenRowOptions& options);
TokenRows tokenize_rows(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer, const TokenRowOptions& options);

// Errors: invalid argument, code CALIBRATION_TOO_SHORT, when `tokens` is below `needed`; says both numbers and what became of the
// texts.
void require_tokens(const TokenRows& rows, int64_t tokens, int64_t needed);

}  // namespace salient::calibration
