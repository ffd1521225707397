// Log-likelihood of continuations given contexts: the measure behind multiple choice. Tokenising, truncation and scoring follow
// lm-evaluation-harness 0.4.13 with softmax_dtype=float32, so that equal models get equal figures up to float rounding.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/language_model.h"
#include "eval/progress.h"
#include "eval/request_journal.h"
#include "eval/run_observer.h"

namespace salient::eval {

struct LikelihoodRequest {
  std::string context;  // may be empty: then the prefix token stands in for it
  std::string continuation;
  std::string document;  // names the document in errors: "arc_test.jsonl:12"
};

struct Likelihood {
  double log_prob = 0;     // natural logarithm, summed over the continuation's tokens
  bool is_greedy = false;  // every one of them is the most probable token at its place
  int64_t tokens = 0;
};

struct TokenPair {
  std::vector<models::TokenId> context;
  std::vector<models::TokenId> continuation;
};

// White space at the end of the context moves to the front of the continuation; then the whole text is encoded and split after as
// many ids as the context alone has. Errors: invalid argument for a continuation without tokens, or an empty context where the
// tokenizer has neither BOS nor EOS.
TokenPair encode_pair(const LanguageModel& model, std::string_view context, std::string_view continuation);

struct LikelihoodOptions {
  int64_t batch_tokens = 2048;  // tokens of one forward pass
  ProgressCallback progress = {};
  RunWatch watch;                           // sees each distinct input: a context with a candidate but for its last token
  const RequestJournal* journal = nullptr;  // what it has is not run again
};

// A continuation in tokens. The context is not empty.
struct TokenRequest {
  TokenPair tokens;
  std::string document;  // names the document in errors
};

// Results in the order of the requests. What contexts have in common is run once, and logits exist only for the tokens that are
// asked for. Inputs longer than max_length lose tokens on the left, never of the continuation. Errors: invalid argument for a
// continuation longer than max_length; check failed for NaN logits, naming model and document.
std::vector<Likelihood> loglikelihood(const LanguageModel& model, const std::vector<LikelihoodRequest>& requests,
                                      const LikelihoodOptions& options = {});
std::vector<Likelihood> token_loglikelihood(const LanguageModel& model, std::vector<TokenRequest> requests,
                                            const LikelihoodOptions& options = {});

}  // namespace salient::eval
