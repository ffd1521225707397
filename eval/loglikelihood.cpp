#include "eval/loglikelihood.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <exception>
#include <map>

#include "common/error.h"
#include "eval/scored_inputs.h"
#include "eval/unicode_text.h"

namespace salient::eval {
namespace {

using models::TokenId;

// Equal inputs are run once: they are those of continuations that differ in their last token alone.
ScoredInputs prepare(const LanguageModel& model, std::vector<TokenRequest> requests) {
  ScoredInputs out;
  std::map<std::vector<TokenId>, size_t> known;
  for (size_t i = 0; i < requests.size(); ++i) {
    TokenPair pair = std::move(requests[i].tokens);
    if (static_cast<int64_t>(pair.continuation.size()) > model.max_length) {
      fail(ErrorKind::kInvalidArgument, "{}: a continuation of {} tokens, but {} takes inputs of at most {}", requests[i].document,
           pair.continuation.size(), model.name, model.max_length);
    }
    std::vector<TokenId> input = std::move(pair.context);
    input.insert(input.end(), pair.continuation.begin(), pair.continuation.end() - 1);
    if (const auto limit = static_cast<size_t>(model.max_length); input.size() > limit) {
      input.erase(input.begin(), input.end() - static_cast<std::ptrdiff_t>(limit));
    }
    const auto [found, is_new] = known.try_emplace(std::move(input), out.inputs.size());
    if (is_new) {
      out.inputs.push_back({found->first, 1});
      out.requests.emplace_back();
    }
    TreeInput& known_input = out.inputs[found->second];
    known_input.scored = std::max(known_input.scored, static_cast<int64_t>(pair.continuation.size()));
    out.requests[found->second].push_back(i);
    out.continuations.push_back(std::move(pair.continuation));
    out.documents.push_back(std::move(requests[i].document));
  }
  return out;
}

// Encodes requests one after the other. Candidates of one question follow each other: the tokens of their context are found once.
class PairEncoder {
 public:
  explicit PairEncoder(const LanguageModel& model) : model_(model) {}

  TokenPair encode(std::string_view context, std::string_view continuation) {
    TokenPair pair;
    if (context.empty()) {
      const auto prefix = prefix_token(model_);
      if (!prefix) {
        fail(ErrorKind::kInvalidArgument,
             "{}: a text without context needs a first token, but the tokenizer has neither bos_token nor eos_token", model_.name);
      }
      pair.continuation = model_.tokenizer.encode(continuation, false);
      pair.context = {*prefix};
      if (!pair.continuation.empty() && pair.continuation.front() == *prefix) pair.continuation.erase(pair.continuation.begin());
    } else {
      const std::string whole = std::string(context) + std::string(continuation);
      pair.context = context_tokens(context);
      const auto ids = encode_text(model_, whole);
      if (ids.size() > pair.context.size())
        pair.continuation.assign(ids.begin() + static_cast<std::ptrdiff_t>(pair.context.size()), ids.end());
      if (pair.context.empty()) {  // nothing but white space
        if (const auto prefix = prefix_token(model_)) pair.context = {*prefix};
      }
    }
    if (pair.continuation.empty() || pair.context.empty()) {
      fail(ErrorKind::kInvalidArgument,
           "{}: the continuation \"{}\" has no tokens of its own after the context, so it has no likelihood", model_.name,
           continuation);
    }
    return pair;
  }

 private:
  const std::vector<TokenId>& context_tokens(std::string_view context) {
    if (context != context_) {
      tokens_ = encode_text(model_, trim_right(context));
      context_ = context;
    }
    return tokens_;
  }

  const LanguageModel& model_;
  std::string context_;  // empty: none yet, since an empty context has no tokens of its own
  std::vector<TokenId> tokens_;
};

// In as many threads as there are. Of several requests that cannot be encoded the first one is reported.
std::vector<TokenRequest> encode_requests(const LanguageModel& model, const std::vector<LikelihoodRequest>& requests) {
  constexpr int64_t kFewest = 16;  // of a thread
  std::vector<TokenRequest> encoded(requests.size());
  std::vector<std::exception_ptr> failures(requests.size());
  at::parallel_for(0, static_cast<int64_t>(requests.size()), kFewest, [&](int64_t first, int64_t last) {
    PairEncoder encoder(model);
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      const LikelihoodRequest& request = requests[i];
      try {
        encoded[i] = {with_context(request.document, [&] { return encoder.encode(request.context, request.continuation); }),
                      request.document};
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return encoded;
}

}  // namespace

TokenPair encode_pair(const LanguageModel& model, std::string_view context, std::string_view continuation) {
  return PairEncoder(model).encode(context, continuation);
}

std::vector<Likelihood> loglikelihood(const LanguageModel& model, const std::vector<LikelihoodRequest>& requests,
                                      const LikelihoodOptions& options) {
  return token_loglikelihood(model, encode_requests(model, requests), options);
}

std::vector<Likelihood> token_loglikelihood(const LanguageModel& model, std::vector<TokenRequest> requests,
                                            const LikelihoodOptions& options) {
  const ScoredInputs scored = prepare(model, std::move(requests));
  size_t longest = 0;
  for (const TreeInput& input : scored.inputs) longest = std::max(longest, input.ids.size());
  const bool trees = options.watch.observer == nullptr && model.decoder.runs_ragged(static_cast<int64_t>(longest));
  return trees ? tree_likelihood(model, scored, options) : padded_likelihood(model, scored, options);
}

}  // namespace salient::eval
