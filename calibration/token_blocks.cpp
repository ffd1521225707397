#include "calibration/token_blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>

#include "common/error.h"

namespace salient::calibration {
namespace {

using Ids = std::vector<models::TokenId>;

// One block: a stretch of the tokens of all rows, laid end to end.
struct Stretch {
  size_t begin = 0;
  size_t length = 0;
};

struct Stream {
  Ids ids;
  std::vector<uint8_t> mask;
  std::vector<int32_t> domains;
  std::vector<Stretch> rows;
};

Stream lay_out(const TokenRows& rows) {
  Stream stream;
  stream.ids.reserve(static_cast<size_t>(rows.tokens));
  for (size_t i = 0; i < rows.rows.size(); ++i) {
    const Ids& row = rows.rows[i];
    stream.rows.push_back({stream.ids.size(), row.size()});
    stream.ids.insert(stream.ids.end(), row.begin(), row.end());
    if (!rows.masks.empty()) stream.mask.insert(stream.mask.end(), rows.masks[i].begin(), rows.masks[i].end());
    if (rows.domain_names.size() > 1) stream.domains.insert(stream.domains.end(), row.size(), rows.domains[i]);
  }
  return stream;
}

template <typename To, typename From>
at::Tensor padded(const std::vector<From>& values, const std::vector<Stretch>& blocks, size_t width, at::ScalarType dtype) {
  if (values.empty()) return {};
  at::Tensor result = at::zeros({static_cast<int64_t>(blocks.size()), static_cast<int64_t>(width)}, dtype);
  To* to = result.mutable_data_ptr<To>();
  for (const Stretch& block : blocks) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(block.begin);
    std::copy(first, first + static_cast<std::ptrdiff_t>(block.length), to);
    to += width;
  }
  return result;
}

// Places of the old and, behind them, the added blocks: int64 [old + added].
at::Tensor woven_order(int64_t old, int64_t added, double share) {
  std::vector<int64_t> order;
  int64_t taken = 0;
  for (int64_t block = 0; block < old; ++block) {
    order.push_back(block);
    const auto due = std::min(added, static_cast<int64_t>(share * static_cast<double>(block + 1)));
    while (taken < due) order.push_back(old + taken++);
  }
  while (taken < added) order.push_back(old + taken++);
  return at::tensor(order, at::kLong);
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
          {"counted_tokens", s.counted_tokens},
          {"truncated", s.truncated},
          {"split", s.split},
          {"dropped", s.dropped},
          {"dropped_tokens", s.dropped_tokens},
          {"duplicates", s.duplicates},
          {"blocks", s.blocks},
          {"row_tokens",
           {{"total", s.row_tokens.total}, {"min", s.row_tokens.min}, {"median", s.row_tokens.median}, {"max", s.row_tokens.max}}}};
}

TokenBlocks pack_blocks(const TokenRows& rows, const TokenBlockOptions& options) {
  const Stream stream = lay_out(rows);
  std::vector<Stretch> blocks;
  size_t tail = 0;
  if (options.packing == Packing::kConcat) {
    const auto width = static_cast<size_t>(options.rows.max_seq_len);
    for (size_t at = 0; at < stream.ids.size(); at += width) {
      const Stretch block{at, std::min(width, stream.ids.size() - at)};
      const bool keep = block.length == width ||
                        (options.rows.long_rows != LongRows::kDiscard && static_cast<int64_t>(block.length) >= kMinimumTail);
      if (keep)
        blocks.push_back(block);
      else
        tail = block.length;
    }
  } else {
    blocks = stream.rows;
    std::stable_sort(blocks.begin(), blocks.end(), [](const Stretch& a, const Stretch& b) { return a.length > b.length; });
  }
  const int64_t tokens = rows.tokens - static_cast<int64_t>(tail);
  int64_t counted = tokens;
  if (!stream.mask.empty())
    counted = std::accumulate(stream.mask.begin(), stream.mask.end() - static_cast<std::ptrdiff_t>(tail), int64_t{0});
  require_tokens(rows, counted, std::max<int64_t>(options.min_tokens, 1));

  size_t width = 0;
  for (const Stretch& block : blocks) width = std::max(width, block.length);
  TokenBlocks result;
  result.ids = padded<int64_t>(stream.ids, blocks, width, at::kLong);
  result.mask = padded<bool>(stream.mask, blocks, width, at::kBool);
  result.domains = padded<int32_t>(stream.domains, blocks, width, at::kInt);
  result.lengths = at::zeros({static_cast<int64_t>(blocks.size())}, at::kLong);
  auto* length = result.lengths.mutable_data_ptr<int64_t>();
  for (const Stretch& block : blocks) *length++ = static_cast<int64_t>(block.length);
  result.domain_names = rows.domain_names;
  result.domain_rows = rows.domain_rows;
  result.statistics = {.rows = rows.texts,
                       .tokens = tokens,
                       .truncated = rows.truncated,
                       .counted_tokens = counted,
                       .split = rows.split,
                       .dropped = rows.empty + rows.discarded + rows.unanswered,
                       .dropped_tokens = rows.discarded_tokens + static_cast<int64_t>(tail),
                       .duplicates = rows.duplicates,
                       .blocks = static_cast<int64_t>(blocks.size()),
                       .row_tokens = count_tokens(rows.lengths)};
  return result;
}

void weave_blocks(TokenBlocks& blocks, const std::vector<std::vector<models::TokenId>>& rows, const std::string& domain,
                  double share) {
  std::vector<int64_t> stream;
  for (const auto& row : rows) stream.insert(stream.end(), row.begin(), row.end());
  if (stream.empty()) return;
  const auto tokens = static_cast<int64_t>(stream.size());
  const int64_t old = blocks.ids.size(0);
  const int64_t width = blocks.ids.size(1);
  const int64_t added = (tokens + width - 1) / width;
  const at::Tensor lengths = at::full({added}, width, at::kLong);
  lengths[added - 1] = tokens - (added - 1) * width;
  stream.resize(static_cast<size_t>(added * width), 0);
  const at::Tensor real = at::arange(width, at::kLong).unsqueeze(0) < lengths.unsqueeze(1);
  if (!blocks.domains.defined()) {
    const at::Tensor first = at::arange(width, at::kLong).unsqueeze(0) < blocks.lengths.unsqueeze(1);
    blocks.domains = at::zeros_like(first, at::kInt);
    if (blocks.domain_names.empty()) blocks.domain_names = {""};
    if (blocks.domain_rows.empty()) blocks.domain_rows = {blocks.statistics.rows};
  }
  const auto index = static_cast<int64_t>(blocks.domain_names.size());
  blocks.domain_names.push_back(domain);
  blocks.domain_rows.push_back(static_cast<int64_t>(rows.size()));
  const at::Tensor order = woven_order(old, added, share);
  const auto woven = [&](const at::Tensor& first, const at::Tensor& second) {
    return at::cat({first, second}).index_select(0, order);
  };
  blocks.ids = woven(blocks.ids, at::tensor(stream, at::kLong).view({added, width}));
  blocks.lengths = woven(blocks.lengths, lengths);
  blocks.domains = woven(blocks.domains, real.to(at::kInt) * index);
  if (blocks.mask.defined()) blocks.mask = woven(blocks.mask, real);
  blocks.statistics.tokens += tokens;
  blocks.statistics.counted_tokens += tokens;
  blocks.statistics.blocks = old + added;
}

TokenBlocks make_token_blocks(const std::vector<std::string>& texts, const models::Tokenizer& tokenizer,
                              const TokenBlockOptions& options) {
  return pack_blocks(tokenize_rows(texts, tokenizer, options.rows), options);
}

}  // namespace salient::calibration
