// Calibration texts as rows of token ids, before they are packed into blocks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/text/tokenizer.h"

namespace salient::calibration {

// Fewer tokens than this say too little about the inputs of a layer.
inline constexpr int64_t kMinimumTokens = 512;

struct TokenRowOptions {
  int64_t max_seq_len = 512;  // tokens, at least 1
  // What happens to rows of more than max_seq_len tokens: cut to max_seq_len (false), or left out (true). True is AutoAWQ's way,
  // which also strips white space from both ends of every text.
  bool discard_long_rows = false;
  int64_t max_rows = 0;  // stop after this many rows were kept; 0: all
  // Whether a chat template wrote the texts; it has then written BOS and the like, and training added nothing.
  bool from_chat_template = false;
};

struct TokenRows {
  std::vector<std::vector<models::TokenId>> rows;  // none empty, none longer than max_seq_len
  std::vector<int64_t> lengths;                    // of all texts that have tokens, before anything is cut or left out
  int64_t texts = 0;                               // looked at
  int64_t empty = 0;                               // texts without any token, left out
  int64_t truncated = 0;
  int64_t discarded = 0;         // rows left out because they are too long
  int64_t discarded_tokens = 0;  // tokens cut off or left out with them
  int64_t duplicates = 0;        // kept rows equal to an earlier one
  int64_t tokens = 0;            // in rows
};

// Special tokens (BOS and the like) are added to a text, as transformers does for plain text, unless it came out of a chat template
// or starts with the text of the first special token already. AutoAWQ would give such a text a second BOS. Errors: invalid
// argument: max_seq_len below 1.
TokenRows tokenize_rows(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer, const TokenRowOptions& options);

// Errors: invalid argument, code CALIBRATION_TOO_SHORT, when `tokens` is below `needed`; says both numbers and what became of the
// texts.
void require_tokens(const TokenRows& rows, int64_t tokens, int64_t needed);

}  // namespace salient::calibration
