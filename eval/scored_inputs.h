// What log-likelihoods are computed from: the distinct inputs of a task's requests, and the tokens whose probabilities are wanted
// behind them. Two ways run them: as trees, where the decoder can, and in padded batches.
#pragma once

#include <string>
#include <vector>

#include "eval/loglikelihood.h"
#include "eval/token_tree.h"

namespace salient::eval {

struct ScoredInputs {
  // A context with a continuation but for its last token, in the order in which the requests first name them.
  std::vector<TreeInput> inputs;
  std::vector<std::vector<size_t>> requests;                // of each input
  std::vector<std::vector<models::TokenId>> continuations;  // of each request
  std::vector<std::string> documents;                       // of each request, for errors
};

// Scores of one request's tokens, one after the other.
class LikelihoodSum {
 public:
  void add(float log_prob, bool is_top) {
    sum_.log_prob += log_prob;
    sum_.is_greedy = sum_.is_greedy && is_top;
    ++sum_.tokens;
  }
  const Likelihood& value() const { return sum_; }

 private:
  Likelihood sum_{0, true, 0};
};

// Each distinct beginning is run once, in batches without padding (eval/token_tree.h, models/decoder/ragged_batch.h).
std::vector<Likelihood> tree_likelihood(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options);
// Rows padded to the longest of their batch, longest first. For decoders that cannot run trees, and where an observer wants to see
// every input whole.
std::vector<Likelihood> padded_likelihood(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options);

}  // namespace salient::eval
