#include "eval/token_scores.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>

#include <algorithm>

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

at::Tensor pad_right(const std::vector<std::vector<models::TokenId>>& rows, int64_t pad, at::Device device) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  at::Tensor ids = at::full({static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)}, pad, at::TensorOptions().dtype(at::kLong));
  auto* values = ids.mutable_data_ptr<int64_t>();
  for (size_t r = 0; r < rows.size(); ++r) std::copy(rows[r].begin(), rows[r].end(), values + r * longest);
  return ids.to(device);
}

}  // namespace salient::eval
