// Log-probabilities of given next tokens, with memory bounded whatever the vocabulary: logits exist for a slice of the positions at
// a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/decoder.h"
#include "models/text/tokenizer.h"

namespace salient::eval {

// Bytes of float32 logits that exist at a time.
inline constexpr int64_t kLogitBytes = int64_t{32} << 20;

// Positions whose logits fit kLogitBytes; at least 1.
int64_t positions_per_slice(int64_t vocab_size);

struct TokenScores {
  std::vector<float> log_probs;  // natural logarithm, log-softmax in float32
  std::vector<uint8_t> is_top;   // 1 where the token has the largest logit (the first of equal ones); empty unless asked for
};

// hidden: [positions, hidden_size] -> scores of targets: int64 [positions]. NaN stays NaN: callers name the document.
TokenScores score_tokens(const models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& targets, bool want_top);

// A token that may follow a position.
struct NextToken {
  int64_t position = 0;  // row of hidden
  models::TokenId id = 0;
};
// hidden: [positions, hidden_size] -> scores of `next`, which is sorted by position and may ask several of one. is_top is there.
TokenScores score_next(const models::Decoder& decoder, const at::Tensor& hidden, const std::vector<NextToken>& next);

// int64 [rows.size(), longest row] on `device`, shorter rows padded on the right with `pad`.
at::Tensor pad_right(const std::vector<std::vector<models::TokenId>>& rows, int64_t pad, at::Device device);

// Ends a task in which a score is NaN or infinite. `place`: "at document arc.jsonl:3", "in window 7". Error: check failed, naming
// model and place.
[[noreturn]] void fail_not_finite(std::string_view model, std::string_view place);

}  // namespace salient::eval
