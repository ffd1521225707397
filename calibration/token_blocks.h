// Blocks of calibration tokens, as the decoder reads them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/calibration_set.h"
#include "calibration/token_rows.h"

namespace salient::calibration {

// A last block of concatenated tokens is kept when it holds at least this many.
inline constexpr int64_t kMinimumTail = 8;

enum class Packing {
  // All rows joined into one stream, in order, which is cut into blocks of max_seq_len; documents run into each other, and only
  // the last block is padded. With discard_long_rows the tail is dropped too: exactly the blocks of AutoAWQ 0.2.9.
  kConcat,
  // One row a block, right padded, longest first (ties in row order), so that neighbours in a batch have little padding.
  kRows,
};

// "concat" or "rows". Errors: invalid argument.
Packing parse_packing(std::string_view name);

struct TokenBlockOptions {
  TokenRowOptions rows;
  Packing packing = Packing::kConcat;
  int64_t min_tokens = kMinimumTokens;  // in blocks; at least one block is needed in any case
};

struct TokenStatistics {
  int64_t rows = 0;            // texts looked at
  int64_t tokens = 0;          // in blocks, padding not counted
  int64_t truncated = 0;       // rows cut to max_seq_len
  int64_t dropped = 0;         // rows left out: empty, or too long with discard_long_rows
  int64_t dropped_tokens = 0;  // cut off, left out, or in a tail that was too short
  int64_t duplicates = 0;      // rows equal to an earlier one; they stay
  int64_t blocks = 0;
  TokenCounts row_tokens;  // of whole rows
};

Json to_json(const TokenStatistics& statistics);

struct TokenBlocks {
  at::Tensor ids;      // int64 [blocks, width], right padded with 0; width: tokens of the longest block
  at::Tensor lengths;  // int64 [blocks], each at least 1
  TokenStatistics statistics;
};

// Errors: invalid argument: max_seq_len below 1; too few tokens (CALIBRATION_TOO_SHORT: how many there are, how many are needed).
TokenBlocks make_token_blocks(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer,
                              const TokenBlockOptions& options);

}  // namespace salient::calibration
