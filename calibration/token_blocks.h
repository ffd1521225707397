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
  // the last block is padded. With LongRows::kDiscard the tail is dropped too: exactly the blocks of AutoAWQ 0.2.9.
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
  int64_t counted_tokens = 0;  // of these, those that the statistics are taken over: all but with LossMask::kResponse
  int64_t split = 0;           // rows of more than max_seq_len that became several
  int64_t dropped = 0;         // rows left out: empty, too long with LongRows::kDiscard, without an answer with LossMask::kResponse
  int64_t dropped_tokens = 0;  // cut off, left out, or in a tail that was too short
  int64_t duplicates = 0;      // rows equal to an earlier one; they stay
  int64_t blocks = 0;
  TokenCounts row_tokens;  // of whole rows
};

Json to_json(const TokenStatistics& statistics);

struct TokenBlocks {
  at::Tensor ids;      // int64 [blocks, width], right padded with 0; width: tokens of the longest block
  at::Tensor lengths;  // int64 [blocks], each at least 1
  // bool [blocks, width], false on padding: the tokens that the statistics are taken over. Undefined: all real tokens. A block may
  // have none.
  at::Tensor mask;
  at::Tensor domains;  // int32 [blocks, width], 0 on padding: index into domain_names. Undefined where there is one domain
  std::vector<std::string> domain_names = {};
  std::vector<int64_t> domain_rows = {};  // rows kept of each domain
  TokenStatistics statistics;
};

// Errors: invalid argument: too few tokens that count (CALIBRATION_TOO_SHORT: how many there are, how many are needed).
TokenBlocks pack_blocks(const TokenRows& rows, const TokenBlockOptions& options);

// Adds rows of a domain of their own, joined and cut into blocks of the same width; all of their tokens count. They stand among the
// others: after the first n of those stand n * share of the new ones, what is left over at the end, so that a smaller set's blocks
// are the first ones of a larger set's. `statistics` says of them only tokens and blocks.
void weave_blocks(TokenBlocks& blocks, const std::vector<std::vector<models::TokenId>>& rows, const std::string& domain,
                  double share);

// tokenize_rows and pack_blocks in one. Errors: invalid argument: max_seq_len below 1; those of pack_blocks.
TokenBlocks make_token_blocks(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer,
                              const TokenBlockOptions& options);

}  // namespace salient::calibration
