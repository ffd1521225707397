#include "eval/token_scores.h"

#include <ATen/Parallel.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "quant/clones.h"
#include "quant/exponential.h"

namespace salient::eval {

int64_t positions_per_slice(int64_t vocab_size) {
  return std::max<int64_t>(1, kLogitBytes / (vocab_size * static_cast<int64_t>(sizeof(float))));
}

TokenScores score_tokens(const models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& targets, bool want_top) {
  const int64_t positions = hidden.size(0);
  const int64_t slice = positions_per_slice(decoder.config().vocab_size);
  TokenScores out;
  out.log_probs.reserve(static_cast<size_t>(positions));
  for (int64_t begin = 0; begin < positions; begin += slice) {
    const int64_t count = std::min(slice, positions - begin);
    const at::Tensor logits = decoder.logits(hidden.narrow(0, begin, count));
    const at::Tensor wanted = targets.narrow(0, begin, count);
    const at::Tensor chosen = logits.gather(1, wanted.unsqueeze(1)).squeeze(1);
    const at::Tensor log_probs = chosen.sub(at::logsumexp(logits, {1})).to(at::kCPU).contiguous();
    out.log_probs.insert(out.log_probs.end(), log_probs.const_data_ptr<float>(), log_probs.const_data_ptr<float>() + count);
    if (want_top) {
      const at::Tensor top = logits.argmax(1).eq(wanted).to(at::kCPU).contiguous();
      const bool* values = top.const_data_ptr<bool>();
      out.is_top.insert(out.is_top.end(), values, values + count);
    }
  }
  return out;
}

namespace {

// What every score of a position needs.
struct RowSummary {
  float largest = 0;
  int64_t top = 0;  // the first of the largest
  float log_sum = 0;
};

// One row of logits, in this thread. NaN gives a sum that is none.
SALIENT_CLONES RowSummary summarize_row(const float* logits, int64_t n) {
  constexpr int64_t kLanes = 16;  // independent ones, because the compiler must not reorder a sum
  constexpr int64_t kBlock = 1024;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, logits[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = logits[i + lane] > lanes[lane] ? logits[i + lane] : lanes[lane];
  }
  RowSummary row{*std::max_element(lanes, lanes + kLanes), 0, 0};
  for (; i < n; ++i) row.largest = std::max(row.largest, logits[i]);
  row.top = std::find(logits, logits + n, row.largest) - logits;
  double sum = 0;
  for (int64_t block = 0; block < n; block += kBlock) {  // short ones, so that float32 is exact enough
    const int64_t end = std::min(n, block + kBlock);
    float sums[kLanes] = {};
    for (i = block; i + kLanes <= end; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += quant::exponential(logits[i + lane] - row.largest);
    }
    for (; i < end; ++i) sum += quant::exponential(logits[i] - row.largest);
    for (const float lane : sums) sum += lane;
  }
  row.log_sum = static_cast<float>(std::log(sum));
  return row;
}

// Rows of a slice, [rows, vocab_size] on the CPU.
std::vector<RowSummary> summarize_rows(const at::Tensor& logits) {
  std::vector<RowSummary> rows(static_cast<size_t>(logits.size(0)));
  const float* values = logits.const_data_ptr<float>();
  const int64_t n = logits.size(1);
  at::parallel_for(0, logits.size(0), std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) rows[static_cast<size_t>(row)] = summarize_row(values + row * n, n);
  });
  return rows;
}

}  // namespace

TokenScores score_next(const models::Decoder& decoder, const at::Tensor& hidden, const std::vector<NextToken>& next) {
  const int64_t slice = positions_per_slice(decoder.config().vocab_size);
  TokenScores out;
  for (size_t at = 0; at < next.size();) {
    const int64_t begin = next[at].position;
    const int64_t count = std::min(slice, hidden.size(0) - begin);
    const at::Tensor logits = decoder.row_logits(hidden.narrow(0, begin, count)).cpu().contiguous();
    const std::vector<RowSummary> rows = summarize_rows(logits);
    const float* values = logits.const_data_ptr<float>();
    for (; at < next.size() && next[at].position < begin + count; ++at) {
      const int64_t row = next[at].position - begin;
      const RowSummary& summary = rows[static_cast<size_t>(row)];
      out.log_probs.push_back(values[row * logits.size(1) + next[at].id] - summary.largest - summary.log_sum);
      out.is_top.push_back(summary.top == next[at].id ? 1 : 0);
    }
  }
  return out;
}

void fail_not_finite(std::string_view model, std::string_view place) {
  fail(ErrorKind::kCheckFailed, "{}: NaN or infinite logits {}: the model is broken, its scores mean nothing", model, place);
}

at::Tensor pad_right(const std::vector<std::vector<models::TokenId>>& rows, int64_t pad, at::Device device) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  at::Tensor ids =
      at::full({static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)}, pad, at::TensorOptions().dtype(at::kLong));
  auto* values = ids.mutable_data_ptr<int64_t>();
  for (size_t r = 0; r < rows.size(); ++r) std::copy(rows[r].begin(), rows[r].end(), values + r * longest);
  return ids.to(device);
}

}  // namespace salient::eval
