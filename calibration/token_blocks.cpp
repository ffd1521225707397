#include "calibration/token_blocks.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <span>

#include "common/error.h"

namespace salient::calibration {
namespace {

using Ids = std::vector<models::TokenId>;

at::Tensor padded(const std::vector<std::span<const models::TokenId>>& blocks, at::Tensor& lengths) {
  size_t width = 0;
  for (const auto& block : blocks) width = std::max(width, block.size());
  const auto rows = static_cast<int64_t>(blocks.size());
  at::Tensor ids = at::zeros({rows, static_cast<int64_t>(width)}, at::kLong);
  lengths = at::zeros({rows}, at::kLong);
  auto* to = ids.mutable_data_ptr<int64_t>();
  auto* length = lengths.mutable_data_ptr<int64_t>();
  for (const auto& block : blocks) {
    std::copy(block.begin(), block.end(), to);
    to += width;
    *length++ = static_cast<int64_t>(block.size());
  }
  return ids;
}

}  // namespace

Packing parse_packing(std::string_view name) {
  if (name == "concat") return Packing::kConcat;
  if (name == "rows") return Packing::kRows;
  fail(ErrorKind::kInvalidArgument, "calibration packing: found '{}', expected 'concat' or 'rows'", name);
}

Json to_json(const TokenStatistics& s) {
  return {{"rows", s.rows},
          {"tokens", s.tokens},
          {"truncated", s.truncated},
          {"dropped", s.dropped},
          {"dropped_tokens", s.dropped_tokens},
          {"duplicates", s.duplicates},
          {"blocks", s.blocks},
          {"row_tokens",
           {{"total", s.row_tokens.total}, {"min", s.row_tokens.min}, {"median", s.row_tokens.median}, {"max", s.row_tokens.max}}}};
}

TokenBlocks make_token_blocks(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer,
                              const TokenBlockOptions& options) {
  TokenRows rows = tokenize_rows(texts, tokenizer, options.rows);
  std::vector<std::span<const models::TokenId>> blocks;
  Ids stream;
  int64_t tail = 0;
  if (options.packing == Packing::kConcat) {
    stream.reserve(static_cast<size_t>(rows.tokens));
    for (const Ids& row : rows.rows) stream.insert(stream.end(), row.begin(), row.end());
    const auto width = static_cast<size_t>(options.rows.max_seq_len);
    const std::span<const models::TokenId> all(stream);
    for (size_t at = 0; at < all.size(); at += width) {
      const auto block = all.subspan(at, std::min(width, all.size() - at));
      const bool keep =
          block.size() == width || (!options.rows.discard_long_rows && static_cast<int64_t>(block.size()) >= kMinimumTail);
      if (keep)
        blocks.push_back(block);
      else
        tail = static_cast<int64_t>(block.size());
    }
  } else {
    for (const Ids& row : rows.rows) blocks.emplace_back(row);
    std::stable_sort(blocks.begin(), blocks.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  }
  const int64_t tokens = rows.tokens - tail;
  require_tokens(rows, tokens, std::max<int64_t>(options.min_tokens, 1));

  TokenBlocks result;
  result.ids = padded(blocks, result.lengths);
  result.statistics = {.rows = rows.texts,
                       .tokens = tokens,
                       .truncated = rows.truncated,
                       .dropped = rows.empty + rows.discarded,
                       .dropped_tokens = rows.discarded_tokens + tail,
                       .duplicates = rows.duplicates,
                       .blocks = static_cast<int64_t>(blocks.size()),
                       .row_tokens = count_tokens(rows.lengths)};
  return result;
}

}  // namespace salient::calibration
