// Log-likelihood of whole texts, in windows that score each token once: loglikelihood_rolling of lm-evaluation-harness 0.4.13. The
// text is encoded under the model's BOS policy and the prefix token stands in front of it, so a tokenizer that adds BOS has it
// twice and the second one is scored, as there.
#pragma once

#include <string>
#include <vector>

#include "eval/loglikelihood.h"

namespace salient::eval {

// The windows of a text's tokens: contexts of one token and up to `max_length` continuation tokens; only the last window has a
// longer context, which overlaps the one before. `ids` may be empty: no windows.
std::vector<TokenPair> rolling_windows(const std::vector<models::TokenId>& ids, models::TokenId prefix, int64_t max_length);

struct RollingText {
  std::string text;
  std::string document;  // names it in errors
};
// Results in the order of the texts; 0 for an empty one. Errors: invalid argument where the tokenizer has neither BOS nor EOS;
// those of loglikelihood().
std::vector<Likelihood> rolling_loglikelihood(const LanguageModel& model, const std::vector<RollingText>& texts,
                                              const LikelihoodOptions& options = {});

}  // namespace salient::eval
