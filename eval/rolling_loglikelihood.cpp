#include "eval/rolling_loglikelihood.h"

#include <algorithm>

#include "common/error.h"

namespace salient::eval {

using models::TokenId;

std::vector<TokenPair> rolling_windows(const std::vector<TokenId>& ids, TokenId prefix, int64_t max_length) {
  std::vector<TokenPair> windows;
  const auto total = static_cast<std::ptrdiff_t>(ids.size());
  const auto length = static_cast<std::ptrdiff_t>(max_length);
  for (std::ptrdiff_t begin = 0; begin < total;) {
    const std::ptrdiff_t end = std::min(begin + length, total);
    TokenPair window;
    window.continuation.assign(ids.begin() + begin, ids.begin() + end);
    if (begin == 0) {
      window.context = {prefix};
    } else {  // slid back, so that context and continuation without its last token fill an input
      window.context.assign(ids.begin() + (end - length - 1), ids.begin() + begin);
    }
    windows.push_back(std::move(window));
    begin = end;
  }
  return windows;
}

std::vector<Likelihood> rolling_loglikelihood(const LanguageModel& model, const std::vector<RollingText>& texts,
                                              const LikelihoodOptions& options) {
  const auto prefix = prefix_token(model);
  if (!prefix) {
    fail(ErrorKind::kInvalidArgument,
         "{}: a text without context needs a first token, but the tokenizer has neither bos_token nor eos_token", model.name);
  }
  std::vector<TokenRequest> requests;
  std::vector<size_t> text_of;
  for (size_t i = 0; i < texts.size(); ++i) {
    for (TokenPair& window : rolling_windows(encode_text(model, texts[i].text), *prefix, model.max_length)) {
      requests.push_back({std::move(window), texts[i].document});
      text_of.push_back(i);
    }
  }
  const std::vector<Likelihood> scores = token_loglikelihood(model, std::move(requests), options);
  std::vector<Likelihood> out(texts.size());
  for (Likelihood& likelihood : out) likelihood.is_greedy = true;
  for (size_t i = 0; i < scores.size(); ++i) {
    Likelihood& whole = out[text_of[i]];
    whole.log_prob += scores[i].log_prob;
    whole.tokens += scores[i].tokens;
    whole.is_greedy = whole.is_greedy && scores[i].is_greedy;
  }
  return out;
}

}  // namespace salient::eval
